"""The groups of a model family that architectures.yaml does not know, found by watching a block.

    question                                        answer
    which linear modules receive the same tensor?   groups, in the order they run
    does the block's output change with the output  `out`, the modules that write into the
    of one module, if all others' are held fixed?   residual stream

The answer is believed if two batches give the same one in two blocks, every linear module runs
exactly once, and no token sees a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fairgate.support.errors import FairgateError
from stages.quantize.core.pairs import Batch
from stages.quantize.model.architectures import Architecture
from stages.quantize.model.calibration_pass import BlockInput, Linear, embed, forward
from stages.quantize.model.streamed import Streamed

_CPU = torch.device("cpu")
_SHAPES = ((2, 5), (3, 4))  # rows and tokens of the two batches; unequal, so that tokens before rows would show


@dataclass(frozen=True)
class _Call:
    """One call of a linear module.

    The input is kept alive, so that no other tensor can take its memory.
    """

    module: str
    input: Tensor
    version: int  # counts changes in place
    output: Tensor

    @property
    def place(self) -> tuple[object, ...]:
        """Equal for two inputs if and only if they are the same numbers in the same memory."""
        return self.input.data_ptr(), self.input.shape, self.input.stride(), self.version


def linears(block: nn.Module) -> list[str]:
    """Names of the linear modules inside a block."""
    return [name for name, module in block.named_modules() if isinstance(module, Linear)]


@torch.no_grad()
def trace(base: Path, model: nn.Module, model_type: str) -> Architecture:
    """Trace the architecture of a model. Reads the embeddings and two blocks.

    Args:
        base: folder of the model.
        model: its skeleton.
        model_type: the family, as named in config.json.
    Raises:
        FairgateError: something could not be proven; the message says what.
    """
    try:
        return _trace(base, model, model_type)
    except _Unproven as error:
        why = str(error)
    except Exception as error:  # an unknown model may fail in any way when a block of it runs alone
        why = f"a block does not run alone: {type(error).__name__}: {error}"
    raise FairgateError(
        f"architecture {model_type!r} is not in the table, and tracing it failed: {why}",
        where=str(base),
        remedy="write an entry in stages/quantize/model/architectures.yaml, or take a model of a supported family",
    )


class _Unproven(Exception):
    """Why a proposal is not believed."""


def _trace(base: Path, model: nn.Module, model_type: str) -> Architecture:
    path = _blocks_path(model)
    blocks = list(model.get_submodule(path).children())
    names = linears(blocks[0])
    if unlike := next((index for index, block in enumerate(blocks) if linears(block) != names), None):
        raise _Unproven(f"block {unlike} has other linear modules than block 0")
    unproven = Architecture(name=model_type, model_types=[model_type], blocks=path, groups=[names], out=[], traced=True)
    source = Streamed(base, unproven)
    vocabulary = int(source.model.config.get_text_config().vocab_size)
    block_inputs = embed(source, [_batch(rows, length, vocabulary) for rows, length in _SHAPES], _CPU)
    proposals = []
    for index in sorted({0, len(blocks) - 1}):
        with source.loaded_block(index, _CPU) as block:
            for block_input in block_inputs:
                calls = _watch(block, names, block_input, index)
                proposals.append((_groups(calls), _writers(block, calls, block_input, index)))
            _check_causal(block, block_inputs[0], index)
    if any(proposal != proposals[0] for proposal in proposals):
        raise _Unproven("its blocks, or two batches in one block, do not agree on which linear modules share an input")
    groups, out = proposals[0]
    return unproven.model_copy(update={"groups": groups, "out": out})


def _blocks_path(model: nn.Module) -> str:
    """The path of the outermost list of like blocks with linear modules."""
    paths: list[str] = []
    for name, module in model.named_modules():
        like = isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1 and len(linears(module[0])) > 1
        if like and not any(name.startswith(f"{outer}.") for outer in paths):
            paths.append(name)
    if len(paths) != 1:
        raise _Unproven(f"it has {len(paths)} lists of like blocks ({', '.join(paths) or 'none'}) instead of one")
    return paths[0]


def _batch(rows: int, length: int, vocabulary: int) -> Batch:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(vocabulary, (rows, length), generator=generator)
    mask = torch.ones(rows, length, dtype=torch.bool)
    return Batch(ids, mask, mask, rows)


def _watch(block: nn.Module, names: list[str], block_input: BlockInput, index: int) -> list[_Call]:
    """Every call of a linear module in one forward pass, in order."""
    calls: list[_Call] = []
    entered: dict[str, tuple[Tensor, int]] = {}

    def enter(name: str, args: tuple[Tensor, ...]) -> None:
        entered[name] = args[0], args[0]._version

    def leave(name: str, output: Tensor) -> None:
        calls.append(_Call(name, *entered[name], output.clone()))

    handles = []
    for name in names:
        module = block.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda _, args, name=name: enter(name, args)))
        handles.append(module.register_forward_hook(lambda _, args, output, name=name: leave(name, output)))
    try:
        forward(block, block_input, index)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if (times := sum(call.module == name for call in calls)) != 1:
            raise _Unproven(f"{name} runs {times} times in a block instead of once")
    rows, length = block_input.batch.ids.shape
    for call in calls:
        if call.input.shape[:-1] not in ((rows, length), (rows * length,)):
            raise _Unproven(f"the input of {call.module} has shape {tuple(call.input.shape)} for {rows} x {length} tokens")
    return calls


def _groups(calls: list[_Call]) -> list[list[str]]:
    """Modules by the input that they share, in the order of the first use of each input."""
    shared: dict[tuple[object, ...], list[str]] = {}
    for call in calls:
        shared.setdefault(call.place, []).append(call.module)
    return list(shared.values())


def _writers(block: nn.Module, calls: list[_Call], block_input: BlockInput, index: int) -> list[str]:
    """Modules whose output reaches the block's output without passing another linear module.

    In the order they run.
    """

    def held(moved: str | None) -> Tensor:
        handles = []
        for call in calls:
            output = call.output + 1 if call.module == moved else call.output.clone()
            handles.append(block.get_submodule(call.module).register_forward_hook(lambda _, args, out, output=output: output))
        try:
            return forward(block, block_input, index)
        finally:
            for handle in handles:
                handle.remove()

    still = held(None)
    return [call.module for call in calls if not torch.equal(held(call.module), still)]


def _check_causal(block: nn.Module, block_input: BlockInput, index: int) -> None:
    """Raise unless no token sees a later one.

    Alignments rely on it: a common prefix of two sentences cannot differ.
    """
    changed = block_input.hidden.clone()
    changed[:, -1] += 1
    before = forward(block, block_input, index)
    after = forward(block, BlockInput(block_input.batch, changed, block_input.arguments), index)
    if not torch.allclose(before[:, :-1], after[:, :-1], atol=1e-4 * float(before.abs().max())):
        raise _Unproven("a token sees later ones: this is no decoder")
