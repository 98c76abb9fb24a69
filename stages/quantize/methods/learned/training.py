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

from fairgate.support.log import log
from stages.quantize.core.fair import OVERFLOW, NotFinite
from stages.quantize.methods.learned.data import Draw, Rows
from stages.quantize.methods.learned.losses import Sides, anchor, distance, divergence, log_likelihood, parity, remembered, shares
from stages.quantize.methods.learned.offsets import Offsets, unquantized
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


FAIR = ["parity", "anchor", "spread"]
Inputs = tuple[Tensor, ...]  # ids and lengths of the text; ids and lengths of the triples, their groups, the running shares


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
    terms = ["divergence", *(["features"] if recipe.features else []), *(FAIR if isinstance(recipe, FairRound) else [])]
    gradients: Callable[..., tuple[Tensor, Tensor]] = partial(_gradients, model, offsets, recipe, len(draw.groups))
    recorded: Recorded | None = None
    # A small model's step is thousands of short kernels, which a GPU runs faster than Python asks for them.
    record = device.type == "cuda" and not recipe.recompute
    while state.step < recipe.steps and state.stopped is None:
        inputs = _inputs(draw, recipe, state, device, alike=record)
        if record and recorded is None:
            recorded = Recorded(gradients, inputs)
        sums, running = (recorded or gradients)(*inputs)
        found = sums.tolist()  # one wait for a GPU
        values = dict(zip(terms, found, strict=False))
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad or not all(map(math.isfinite, found)):
            state.stopped = f"step {state.step}: {' and '.join(bad) or 'a gradient'} is not finite"
        elif state.history and values["divergence"] > state.history[0]["divergence"] + DIVERGED:
            state.stopped = (
                f"step {state.step}: divergence {values['divergence']:.2f} after {state.history[0]['divergence']:.2f} at the start"
            )
        if state.stopped is not None:
            state.history.append({"step": state.step, **{name: value for name, value in values.items() if math.isfinite(value)}})
        else:
            if state.step % SHOWN == 0:
                state.history.append({"step": state.step, **values})
                log.info("step %d: %s", state.step, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
            _descend(offsets, recipe, state.step / recipe.steps)
            state.shares = running.clone()
            state.step += 1
            if state.step % recipe.keep == 0 and state.step < recipe.steps:
                kept(state)


def _inputs(draw: Draw, recipe: Learned, state: State, device: torch.device, *, alike: bool) -> Inputs:
    text = draw.texts(state.step, recipe.texts)
    found = [text.ids, text.lengths]
    if isinstance(recipe, FairRound):
        triples, groups = draw.triples(state.step, recipe.pairs, alike)
        before = torch.full((len(draw.groups),), math.nan) if state.shares is None else state.shares
        found += [triples.ids, triples.lengths, groups, before]
    return tuple(tensor.to(device, non_blocking=True) for tensor in found)


def _gradients(model: nn.Module, offsets: Sequence[Offsets], recipe: Learned, groups: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of one step's loss into the offsets; general text and triples one after the other, so that one of them is in memory.

    Returns:
        The terms of the loss and the sums of the gradients (which are finite where all of them are), and the running shares after the step.
    """
    for each in offsets:
        each.refresh()
    text = Rows(*inputs[:2])
    with unquantized(offsets):
        teacher = _out(model, text, recipe)
    student = _out(model, text, recipe)
    general = [divergence(teacher.logits, student.logits, text.lengths)]
    if recipe.features:
        general.append(distance(teacher.hidden_states, student.hidden_states, text.lengths))
    torch.stack([term * weight for term, weight in zip(general, (1.0, recipe.features), strict=False)]).sum().backward()
    terms, mean = [term.detach() for term in general], general[0].new_zeros(0)
    del teacher, student
    if isinstance(recipe, FairRound):
        triples, of_group, before = Rows(*inputs[2:4]), inputs[4], inputs[5]
        with unquantized(offsets):
            teachers = _sides(model, triples)
        students = _sides(model, triples)
        now = shares(students.preference, of_group, groups, recipe.tau)
        mean = remembered(now, before)
        fair = [parity(now, mean, recipe.worst), anchor(students, teachers), students.preference.square().mean()]
        (recipe.parity * fair[0] + recipe.anchor * fair[1] + recipe.spread * fair[2]).backward()
        terms += [term.detach() for term in fair]
    return torch.stack([*terms, *(each.G.sum(dtype=torch.float32) for each in offsets)]), mean


class Recorded:
    """A step's kernels as a CUDA graph: asked for once, then replayed with other numbers in the same places."""

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], inputs: Inputs) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made on first use must not be made while recording
            run(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = run(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, which the next call overwrites."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs


def _out(model: nn.Module, rows: Rows, recipe: Learned) -> Any:
    return model(input_ids=rows.ids, use_cache=False, output_hidden_states=recipe.features > 0)


def _sides(model: nn.Module, rows: Rows) -> Sides:
    return Sides(*log_likelihood(model(input_ids=rows.ids, use_cache=False).logits, rows.ids, rows.lengths).chunk(3))


def distil_blocks(
    model: nn.Module, blocks: Sequence[nn.Module], offsets: Sequence[Offsets], prefix: str, rows: Rows, recipe: Learned
) -> None:
    """Bring every block's output, on what the quantized blocks before it hand on, near the unquantized block's.

    Args:
        prefix: of the blocks' names, with the dot. rows: the text of all steps; a step takes `recipe.texts` of them.
    Raises: NotFinite where a block's output is not near any number.
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
        if recipe.block_steps and not torch.isfinite(loss):  # no sum of it would be finite again
            raise NotFinite("the block's output is not finite", where=f"{prefix}{index}", remedy=OVERFLOW)
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
    """Keep no activation inside a block: its forward runs again for the gradient. Nothing in it is drawn at random."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
