"""How many threads an evaluation takes if others run beside it on the machine.

Several evaluations that each take all cores are several times slower together than one after
another. So each announces itself by a lock on a file in the temporary folder and, if others do
so too, takes its share of the cores. The number is fixed before the first batch: floating-point
sums depend on it. An evaluation that is alone takes what torch takes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fairgate.support.locks import LockHeld, locked

_FOLDER = Path(tempfile.gettempdir()) / f"fairgate-evaluations-{os.getuid()}"
_FEW = 2  # cores that are not worth sharing


@contextmanager
def announced(folder: Path = _FOLDER) -> Iterator[Callable[[], int]]:
    """Announce this evaluation until the end of the block; a killed process leaves no trace.

    Yields:
        A function that counts the evaluations of this user on this machine, this one included.
    """
    places = [folder / f"{number}.lock" for number in range(os.cpu_count() or 1)]
    with ExitStack() as stack:
        own = None
        for place in places:
            try:
                stack.enter_context(locked(place, busy="another evaluation"))
            except LockHeld:
                continue
            own = place
            break
        yield lambda: 1 + sum(_is_held(place) for place in places if place != own and place.exists())


def _is_held(place: Path) -> bool:
    try:
        with locked(place, busy="an evaluation", shared=True):  # shared: two that count do not see each other
            return False
    except LockHeld:
        return True


def share_of(cores: int, running: int) -> int:
    """Threads for one of `running` evaluations on a machine where torch would take `cores`."""
    return cores if running < 2 or cores <= _FEW else max(1, cores // running)


def limit_threads(running: int) -> None:
    """Take this evaluation's share of the cores, unless OMP_NUM_THREADS says how many."""
    import torch  # takes seconds

    cores = torch.get_num_threads()
    share = share_of(cores, running)
    # Not called for the same number: it would change more than the number.
    if share != cores and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share)
