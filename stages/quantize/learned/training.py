"""The steps: sign-gradient descent on offsets and clips, first block by block, then on what the whole model says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.checkpoint import checkpoint

from stages.common.cli import log
from stages.quantize.learned.data import Draw, Rows
from stages.quantize.learned.losses import Sides, anchor, divergence, log_likelihood, parity, remembered, shares
from stages.quantize.learned.offsets import Offsets, unquantized
from stages.quantize.settings import FairRound, Learned

SHOWN = 10  # steps between two lines of the history
DIVERGED = 2.0  # nats of divergence above the first step's that no run comes back from


@dataclass
class State:
    """Where the steps stand: what a killed run goes on from, beside V and the clips.

    shares: running share of preferred stereotypes by group. history: a line every few steps. stopped: why it ended early.
    """

    step: int = 0
    shares: Tensor | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: str | None = None


@dataclass(frozen=True)
class Losses:
    """The terms of one step's loss, for the history, and the running shares after it."""

    terms: dict[str, Tensor]
    shares: Tensor | None


def train(
    model: nn.Module,
    offsets: Sequence[Offsets],
    draw: Draw,
    recipe: Learned,
    state: State,
    device: torch.device,
    kept: Callable[[State], None],
) -> None:
    """Take the steps that `state` has not taken yet, end to end.

    A step whose loss or gradient is not finite is not taken; a divergence far above the first one ends the run as well, and the caller goes
    back to the last state that was `kept` (called every `recipe.keep` steps).
    """
    while state.step < recipe.steps and state.stopped is None:
        for each in offsets:
            each.refresh()
        losses = _backward(model, offsets, draw, recipe, state, device)
        sums = torch.stack([*losses.terms.values(), *(each.G.sum(dtype=torch.float32) for each in offsets)]).tolist()  # one wait for a GPU
        values = dict(zip(losses.terms, sums, strict=False))
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad or not all(map(math.isfinite, sums)):
            state.stopped = f"step {state.step}: {' and '.join(bad) or 'a gradient'} is not finite"
        elif state.history and values["divergence"] > state.history[0]["divergence"] + DIVERGED:
            state.stopped = (
                f"step {state.step}: divergence {values['divergence']:.2f} after {state.history[0]['divergence']:.2f} at the start"
            )
        else:
            if state.step % SHOWN == 0:
                state.history.append({"step": state.step, **values})
                log.info("step %d: %s", state.step, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
            _descend(offsets, recipe, state.step / recipe.steps)
            state.shares = losses.shares
            state.step += 1
            if state.step % recipe.keep == 0 and state.step < recipe.steps:
                kept(state)


def _backward(model: nn.Module, offsets: Sequence[Offsets], draw: Draw, recipe: Learned, state: State, device: torch.device) -> Losses:
    """Gradients of one step's loss; general text and triples one after the other, so that one of them is in memory."""
    rows = draw.texts(state.step, recipe.texts).to(device)
    with unquantized(offsets):
        teacher = _logits(model, rows)
    kl = divergence(teacher, _logits(model, rows), rows.lengths)
    del teacher
    kl.backward()
    terms = {"divergence": kl.detach()}
    if not isinstance(recipe, FairRound):
        return Losses(terms, None)
    rows, groups = draw.triples(state.step, recipe.pairs)
    rows, groups = rows.to(device), groups.to(device)
    with unquantized(offsets):
        before = _sides(model, rows)
    after = _sides(model, rows)
    now = shares(after.preference, groups, len(draw.groups), recipe.tau)
    mean = remembered(now, state.shares)
    fair = {"parity": parity(now, mean, recipe.worst), "anchor": anchor(after, before), "spread": after.preference.square().mean()}
    weights = {"parity": recipe.parity, "anchor": recipe.anchor, "spread": recipe.spread}
    torch.stack([weights[name] * term for name, term in fair.items()]).sum().backward()
    return Losses(terms | {name: term.detach() for name, term in fair.items()}, mean)


def _logits(model: nn.Module, rows: Rows) -> Tensor:
    logits: Tensor = model(input_ids=rows.ids, use_cache=False).logits
    return logits


def _sides(model: nn.Module, rows: Rows) -> Sides:
    return Sides(*log_likelihood(_logits(model, rows), rows.ids, rows.lengths).chunk(3))


def distil_blocks(
    model: nn.Module, blocks: Sequence[nn.Module], offsets: Sequence[Offsets], prefix: str, rows: Rows, recipe: Learned
) -> None:
    """Bring every block's output, on what the quantized blocks before it hand on, near the unquantized block's.

    Args:
        prefix: of the blocks' names, with the dot. rows: the passages of all steps; a step takes `recipe.texts` of them.
    """
    inputs, targets, arguments = _recorded(model, blocks, offsets, rows)
    parts = range(0, len(rows.ids), recipe.texts)
    for index, block in enumerate(blocks):
        own = [each for each in offsets if each.names[0].startswith(f"{prefix}{index}.")]
        for step in range(recipe.block_steps):
            for each in own:
                each.refresh()
            part = slice(start := parts[step % len(parts)], start + recipe.texts)
            there = torch.arange(rows.ids.shape[1], device=rows.ids.device) < rows.lengths[part, None]
            out, target = (hidden[there] for hidden in (_run(block, inputs[part], arguments[index]), targets[index][part]))
            loss = mse_loss(out.float(), target.float()) / (target.float() - inputs[part][there].float()).square().mean()
            loss.backward()
            _descend(own, recipe, step / recipe.block_steps)
        for each in own:
            each.refresh()
        with torch.no_grad():
            inputs = torch.cat([_run(block, inputs[start : start + recipe.texts], arguments[index]) for start in parts])


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _recorded(
    model: nn.Module, blocks: Sequence[nn.Module], offsets: Sequence[Offsets], rows: Rows
) -> tuple[Tensor, list[Tensor], list[Arguments]]:
    """The first block's input [B, L, d], every unquantized block's output, and its other arguments (of one row: all share them)."""
    inputs: list[Tensor] = []
    targets: list[list[Tensor]] = [[] for _ in blocks]
    arguments: list[Arguments] = []

    def before(index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, *others = args if args else (kwargs["hidden_states"],)
        if index == 0:
            inputs.append(hidden)
        if len(arguments) <= index:
            arguments.append((tuple(others), {name: value for name, value in kwargs.items() if name != "hidden_states"}))

    def after(index: int, module: nn.Module, args: Any, out: Any) -> None:
        targets[index].append(out if isinstance(out, Tensor) else out[0])

    handles = [block.register_forward_pre_hook(partial(before, index), with_kwargs=True) for index, block in enumerate(blocks)]
    handles += [block.register_forward_hook(partial(after, index)) for index, block in enumerate(blocks)]
    try:
        with unquantized(offsets):
            for row in rows.ids:
                model(input_ids=row[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(inputs), [torch.cat(target) for target in targets], arguments


def _run(block: nn.Module, hidden: Tensor, arguments: Arguments) -> Tensor:
    out = block(hidden, *arguments[0], **arguments[1])
    return out if isinstance(out, Tensor) else out[0]


def _descend(offsets: Sequence[Offsets], recipe: Learned, done: float) -> None:
    """One step; its length falls linearly with the share of the steps that is `done`."""
    for each in offsets:
        each.step(recipe.rate * (1 - done), recipe.clip_rate * (1 - done))


@contextmanager
def reproducible() -> Iterator[None]:
    """Only kernels that give the same result every time; on a GPU the matrix products also need CUBLAS_WORKSPACE_CONFIG.

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
    """Keep no activation inside a block: its forward runs again for the gradient."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
