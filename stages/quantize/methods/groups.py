"""One group of modules with a common input: its Hessians in, its modules quantized in place, and what the record says of them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fairgate.contracts.contributions import Contribution
from fairgate.contracts.records import ModuleRow, Penalty, Status
from fairgate.support.errors import FairgateError
from fairgate.support.log import log
from stages.quantize.core.columns import Rounded
from stages.quantize.core.diagnostics import module_contributions
from stages.quantize.core.fair import Solved, solve
from stages.quantize.core.grid import Grid
from stages.quantize.core.hessian import FairnessWeight, Hessians
from stages.quantize.core.names import Mode
from stages.quantize.model.architectures import Architecture
from stages.quantize.model.calibration_pass import SolveGroup, linear, set_weight, weight_of
from stages.quantize.settings import Compute, Gptq


@dataclass(frozen=True)
class QuantizedModule:
    """One quantized linear module and its row of `quantization.json`."""

    rounded: Rounded
    row: ModuleRow
    contributions: list[Contribution] = field(default_factory=list)


@dataclass(frozen=True)
class FairnessTerm:
    """Where the fairness term applies and how strongly; absent for plain GPTQ."""

    modules: set[str]
    blocks: set[int]
    weight: FairnessWeight
    mode: Mode
    group_mean: bool


def solver(
    architecture: Architecture, recipe: Gptq, term: FairnessTerm | None, done: list[QuantizedModule], compute: Compute
) -> SolveGroup:
    """Quantizes one group of modules in place, stacked, and appends the results to `done`."""

    def stacked(names: list[str], index: int) -> Iterable[tuple[Grid, list[str]]]:
        """Modules with the same input and the same grid are solved as one matrix."""
        by_grid: dict[Grid, list[str]] = {}
        for name in names:
            by_grid.setdefault(recipe.grid(f"{architecture.blocks}.{index}.{name}"), []).append(name)
        return by_grid.items()

    def solve_group(index: int, group: list[str], block: nn.Module, hessians: Hessians) -> None:
        with_term = [name for name in group if term is not None and index in term.blocks and name in term.modules]
        B = term.weight.matrix(hessians) if term is not None and with_term else None
        mode = term.mode if term is not None else Mode.exact
        without_term = [name for name in group if name not in with_term]
        stacks = [(*stack, matrix) for chosen, matrix in ((with_term, B), (without_term, None)) for stack in stacked(chosen, index)]
        for grid, names, matrix in stacks:
            modules = [linear(block, name) for name in names]
            W = torch.cat([weight_of(module).float() for module in modules])
            with located(f"{architecture.blocks}.{index}.{'/'.join(names)}"):
                rounding = (grid, mode, recipe.damping, recipe.act_order)
                solved = solve(W, hessians.H, matrix, *rounding, compute.diagnostics)
                wanted = compute.diagnostics and compute.alpha_zero and matrix is not None
                plain = solve(W, hessians.H, None, *rounding) if wanted else None
            ratio = None if matrix is None else float(matrix.trace() / hessians.H.trace())
            start = 0
            for name, module in zip(names, modules, strict=True):
                stop = start + weight_of(module).shape[0]
                rounded = solved.rounded.rows(start, stop)
                Q = rounded.Q
                full = f"{architecture.blocks}.{index}.{name}"
                status = _status(solved)
                part = slice(start, stop)
                kind, table = architecture.kind(name), []
                if compute.diagnostics and matrix is not None and hessians.C is not None:
                    states = {"weight": W[part], "target": solved.target[part], "quantized": Q}
                    states |= {} if plain is None else {"alpha_zero": plain.rounded.rows(start, stop).Q}
                    table = module_contributions(full, index, kind, states, hessians.C, hessians.pairs)
                penalty = Penalty.model_validate(table[0].model_dump(include=set(Penalty.model_fields))) if table else None
                row = module_row(full, index, kind, W[part], solved.target[part], Q, status, solved, rounded.loss, ratio, penalty)
                done.append(QuantizedModule(rounded, row, table))
                _warn(full, status, solved.tried)
                if recipe.collection == "sequential":
                    set_weight(module, Q)
                start = stop

    return solve_group


def _status(solved: Solved) -> Status:
    if solved.fallback:
        return Status.fallback_rtn
    return Status.damped if any(len(ladder) > 1 for ladder in solved.tried.values()) else Status.ok


def _warn(name: str, status: Status, tried: Mapping[str, Sequence[float]]) -> None:
    """Say at once what the record says later."""
    ladders = "; ".join(f"{matrix}: {len(ladder)} tries up to {ladder[-1]:.4f}" for matrix, ladder in tried.items())
    if status is Status.fallback_rtn:
        log.warning("%s: rounded to nearest, no factorization succeeded (damping of %s)", name, ladders)
    elif status is Status.damped:
        log.warning("%s: needed more damping (%s)", name, ladders)


def module_row(
    full: str,
    index: int,
    kind: str,
    W: Tensor,
    target: Tensor,
    Q: Tensor,
    status: Status,
    solved: Solved | None,
    loss: Tensor | None,
    bias_ratio: float | None,
    penalty: Penalty | None,
) -> ModuleRow:
    """The module's row of the record; `solved`, `loss` [r], `bias_ratio` and `penalty`: None where nothing needed them."""
    norm = W.norm().clamp(min=torch.finfo(W.dtype).tiny)
    total = norm.new_zeros(()) if loss is None else loss.sum()
    measures = torch.stack([(target - W).norm() / norm, (Q - W).norm() / norm, total]).tolist()  # a GPU is waited for once
    return ModuleRow(
        name=full,
        block=index,
        kind=kind,
        shape=(W.shape[0], W.shape[1]),
        status=status,
        debiased=bias_ratio is not None,
        damping=None if solved is None else solved.damping,
        damping_tried={} if solved is None else solved.tried,
        loss=None if solved is None or solved.fallback else measures[2],
        bias_ratio=bias_ratio,
        top_eigenvalue=None if solved is None else solved.top_eigenvalue,
        shift=measures[0],
        weight_change=measures[1],
        dead_columns=0 if solved is None else solved.dead,
        penalty=penalty,
    )


@contextmanager
def located(where: str) -> Iterator[None]:
    """Name the module in an error of the arithmetic, which knows matrices alone."""
    try:
        yield
    except FairgateError as error:
        raise type(error)(error.what, where=where, remedy=error.remedy) from None
