"""The offline policy: only fetch reaches the network, every other stage reads pinned local data."""

from __future__ import annotations

import os

from fairgate.support.library_errors import translated


def go_offline() -> None:
    """Keep the libraries off the hub and from reporting usage, unless the user set it otherwise.

    The libraries read these variables when they are imported, so call this before. Fetch sets
    HF_HUB_OFFLINE to 0 for itself.
    """
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # GPTQModel reads it when imported. With two cores it would start one worker, and its own pools
    # need two.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def require_hub_settings() -> None:
    """Require that the hub's library can read its variables, which it does when it is imported.

    Raises:
        FairgateError: one of them is no number, for example.
    """
    with translated("the hub's library cannot read a variable", where="the environment variables HF_*", remedy="correct it, or unset it"):
        import huggingface_hub.constants  # noqa: F401
