"""Steps block by block, before those over the whole model: bring each block's output near the
unquantized block's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from stages.quantize.core.fair import OVERFLOW, NotFinite
from stages.quantize.methods.learned.data import Rows
from stages.quantize.methods.learned.offsets import Offsets, descend, unquantized
from stages.quantize.methods.learned.settings import Learned

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def distil_blocks(
    model: nn.Module, blocks: Sequence[nn.Module], offsets: Sequence[Offsets], prefix: str, rows: Rows, recipe: Learned
) -> None:
    """Fit every block's output, on what the quantized blocks before it hand on, to the unquantized
    block's.

    Args:
        prefix: of the blocks' names, with the dot.
        rows: the text of all steps; a step takes `recipe.texts` of them.
    Raises:
        NotFinite: a block's output is not a number.
    """
    inputs, targets, arguments = _captured(model, blocks, offsets, rows)
    parts = range(0, len(rows.ids), recipe.texts)
    for index, block in enumerate(blocks):
        of_block = [part for part in offsets if part.names[0].startswith(f"{prefix}{index}.")]
        for step in range(recipe.block_steps):
            for part in of_block:
                part.refresh()
            texts = slice(start := parts[step % len(parts)], start + recipe.texts)
            valid = torch.arange(rows.ids.shape[1], device=rows.ids.device) < rows.lengths[texts, None]
            out, target = (hidden[valid] for hidden in (_output(block, inputs[texts], arguments[index]), targets[index][texts]))
            loss = mse_loss(out.float(), target.float()) / (target.float() - inputs[texts][valid].float()).square().mean()
            loss.backward()
            descend(of_block, recipe, step / recipe.block_steps)
        if recipe.block_steps and not torch.isfinite(loss):  # no later loss would be finite again
            raise NotFinite("the block's output is not finite", where=f"{prefix}{index}", remedy=OVERFLOW)
        for part in of_block:
            part.refresh()
        with torch.no_grad():
            inputs = torch.cat([_output(block, inputs[start : start + recipe.texts], arguments[index]) for start in parts])


def _captured(
    model: nn.Module, blocks: Sequence[nn.Module], offsets: Sequence[Offsets], rows: Rows
) -> tuple[Tensor, list[Tensor], list[Arguments]]:
    """The first block's input [B, L, d], every unquantized block's output, and its other arguments
    (of one row: all share them).
    """
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


def _output(block: nn.Module, hidden: Tensor, arguments: Arguments) -> Tensor:
    out = block(hidden, *arguments[0], **arguments[1])
    return out if isinstance(out, Tensor) else out[0]
