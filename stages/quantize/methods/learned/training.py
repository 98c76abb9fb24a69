"""The steps: sign-gradient descent on offsets and clips, on what the whole model says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairgate.support.log import log
from stages.quantize.methods.learned.cuda_graph import GraphedStep
from stages.quantize.methods.learned.data import Draw, Rows
from stages.quantize.methods.learned.losses import Sides, anchor, distance, divergence, log_likelihood, parity, remembered, shares
from stages.quantize.methods.learned.offsets import Offsets, descend, unquantized
from stages.quantize.methods.learned.settings import FairRound, Learned

SHOWN = 10  # steps between two lines of the history
DIVERGED = 2.0  # nats of divergence above the first step's that no run comes back from
FAIR = ["parity", "anchor", "spread"]

Batch = tuple[Tensor, ...]  # ids and lengths of the text; ids and lengths of the triples, their groups, the running shares


@dataclass
class State:
    """Where the steps stand: what a killed run goes on from, beside V and the clips.

    Args:
        step: steps taken.
        shares: running share of preferred stereotypes by group, [groups].
        history: terms of the loss every few steps.
        stopped: why the steps ended early; None means they did not.
    """

    step: int = 0
    shares: Tensor | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: str | None = None


def train(
    model: nn.Module,
    offsets: Sequence[Offsets],
    draw: Draw,
    recipe: Learned,
    fair: FairRound | None,
    state: State,
    device: torch.device,
    keep: Callable[[State], None],
) -> None:
    """Take the steps that `state` has not taken yet, end to end.

    A step whose loss or gradient is not finite is not taken and ends the run, and so does a
    divergence far above the first one. The caller then goes back to the last state that was kept.

    Args:
        fair: settings of the pairs' loss; None means general text alone.
        keep: called with the state every `recipe.keep` steps.
    """
    terms = ["divergence", *(["features"] if recipe.features else []), *(FAIR if fair else [])]
    loss_and_gradients: Callable[..., tuple[Tensor, ...]] = partial(gradients, model, offsets, recipe, fair, len(draw.groups))
    if graphed := device.type == "cuda" and not recipe.recompute:
        loss_and_gradients = GraphedStep(loss_and_gradients)
    while state.step < recipe.steps and state.stopped is None:
        batch = next_batch(draw, recipe, fair, state, device, alike=graphed)
        sums, running = loss_and_gradients(*batch)
        if accepted(state, terms, sums.tolist()):  # one wait for a GPU
            descend(offsets, recipe, state.step / recipe.steps)
            state.shares = running.clone()
            state.step += 1
            if state.step % recipe.keep == 0 and state.step < recipe.steps:
                keep(state)


def next_batch(draw: Draw, recipe: Learned, fair: FairRound | None, state: State, device: torch.device, *, alike: bool) -> Batch:
    """What the next step sees, on the device. `alike` asks for the same shapes at every step."""
    text = draw.texts(state.step, recipe.texts)
    batch = [text.ids, text.lengths]
    if fair:
        triples, groups = draw.triples(state.step, fair.pairs, alike)
        before = torch.full((len(draw.groups),), math.nan) if state.shares is None else state.shares
        batch += [triples.ids, triples.lengths, groups, before]
    return tuple(tensor.to(device, non_blocking=True) for tensor in batch)


def gradients(
    model: nn.Module, offsets: Sequence[Offsets], recipe: Learned, fair: FairRound | None, groups: int, *batch: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward and backward of one step: the loss's gradients go into the offsets.

    General text and triples follow one another, so that the activations of one of them are in
    memory.

    Returns:
        The terms of the loss and the sums of the gradients (which are finite where all of them
        are), and the running shares after the step.
    """
    for part in offsets:
        part.refresh()
    text = Rows(*batch[:2])
    with unquantized(offsets):
        teacher = _outputs(model, text, recipe)
    student = _outputs(model, text, recipe)
    general = [divergence(teacher.logits, student.logits, text.lengths)]
    if recipe.features:
        general.append(distance(teacher.hidden_states, student.hidden_states, text.lengths))
    torch.stack([term * weight for term, weight in zip(general, (1.0, recipe.features), strict=False)]).sum().backward()
    terms, mean = [term.detach() for term in general], general[0].new_zeros(0)
    del teacher, student
    if fair:
        triples, of_group, before = Rows(*batch[2:4]), batch[4], batch[5]
        with unquantized(offsets):
            teachers = _sides(model, triples)
        students = _sides(model, triples)
        now = shares(students.preference, of_group, groups, fair.tau)
        mean = remembered(now, before)
        pairs = [parity(now, mean, fair.worst), anchor(students, teachers), students.preference.square().mean()]
        (fair.parity * pairs[0] + fair.anchor * pairs[1] + fair.spread * pairs[2]).backward()
        terms += [term.detach() for term in pairs]
    return torch.stack([*terms, *(part.G.sum(dtype=torch.float32) for part in offsets)]), mean


def accepted(state: State, terms: Sequence[str], sums: Sequence[float]) -> bool:
    """Whether to take the step: writes the history, and in `state.stopped` why the steps end here.

    Args:
        sums: the terms of the loss, then a sum for every gradient.
    """
    values = dict(zip(terms, sums, strict=False))
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    first = state.history[0]["divergence"] if state.history else None
    if not all(map(math.isfinite, sums)):
        bad = [name for name in values if name not in finite]
        state.stopped = f"step {state.step}: {' and '.join(bad) or 'a gradient'} is not finite"
    elif first is not None and values["divergence"] > first + DIVERGED:
        state.stopped = f"step {state.step}: divergence {values['divergence']:.2f} after {first:.2f} at the start"
    if state.stopped is not None:
        state.history.append({"step": state.step, **finite})
    elif state.step % SHOWN == 0:
        state.history.append({"step": state.step, **values})
        log.info("step %d: %s", state.step, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return state.stopped is None


def _outputs(model: nn.Module, rows: Rows, recipe: Learned) -> Any:
    return model(input_ids=rows.ids, use_cache=False, output_hidden_states=recipe.features > 0)


def _sides(model: nn.Module, rows: Rows) -> Sides:
    return Sides(*log_likelihood(model(input_ids=rows.ids, use_cache=False).logits, rows.ids, rows.lengths).chunk(3))


@contextmanager
def reproducible() -> Iterator[None]:
    """Only kernels that give the same result every time; on a GPU the matrix products also need
    CUBLAS_WORKSPACE_CONFIG.

    Those of float32 may use tensor cores: the teacher's are rounded alike.
    """
    memory: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    precision = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("high")
    memory.fill_uninitialized_memory = False  # a look for errors, and a kernel for every new tensor
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_float32_matmul_precision(precision)
        memory.fill_uninitialized_memory = filled


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Keep no activation inside a block: its forward runs again for the gradient. Nothing in it is
    drawn at random.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
