"""One group of modules with a common input: its Hessians in, its modules quantized in place, and
what the record says of them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairgate.contracts.contributions import Contribution
from fairgate.contracts.records import ModuleRow, Penalty, Status
from fairgate.support.log import log
from stages.quantize.core.compute import Compute
from stages.quantize.core.diagnostics import module_contributions
from stages.quantize.core.fair import Solved, solve
from stages.quantize.core.grid import Grid
from stages.quantize.core.hessian import FairnessWeight, Hessians
from stages.quantize.core.names import Mode
from stages.quantize.methods.base import QuantizedModule
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.methods.shared.modules import changes, grid_of, located, require_scales
from stages.quantize.model.architectures import Architecture
from stages.quantize.model.calibration_pass import linear, set_weight, weight_of


@dataclass(frozen=True)
class FairnessTerm:
    """Where the fairness term applies and how strongly; absent for plain GPTQ."""

    modules: set[str]
    blocks: set[int]
    weight: FairnessWeight
    mode: Mode
    group_mean: bool

    def applies(self, block: int, module: str) -> bool:
        """Whether the module of that block is debiased."""
        return block in self.blocks and module in self.modules


@dataclass(frozen=True)
class Stack:
    """Modules of a block that are solved as one matrix: they share their input, their grid and
    their fairness term.

    Args:
        names: of the modules, inside the block.
        W: [r, d] float32, their weights below one another.
        B: [d, d] float32, the fairness term; None means that they are rounded by plain GPTQ.
    """

    names: list[str]
    grid: Grid
    W: Tensor
    B: Tensor | None


@dataclass(frozen=True)
class Solution:
    """A solved stack.

    Args:
        plain: the result of GPTQ without the fairness term; None if the diagnostics do not ask for
            it.
        bias_ratio: tr B / tr H; None without a fairness term.
    """

    stack: Stack
    solved: Solved
    plain: Solved | None
    bias_ratio: float | None


class GroupSolver:
    """Quantizes groups of modules in place, one by one; `modules` are the results so far."""

    def __init__(self, architecture: Architecture, recipe: CalibratedRecipe, term: FairnessTerm | None, compute: Compute) -> None:
        self._architecture, self._recipe, self._term, self._compute = architecture, recipe, term, compute
        self.modules: list[QuantizedModule] = []

    def __call__(self, index: int, group: list[str], block: nn.Module, hessians: Hessians) -> None:
        """Quantize one group of block `index`."""
        for stack in self._stacks(index, group, block, hessians):
            solution = self._solve(index, stack, hessians)
            first = 0
            for name in stack.names:
                module = linear(block, name)
                last = first + weight_of(module).shape[0]
                quantized = self._quantized(index, name, solution, slice(first, last), hessians)
                self.modules.append(quantized)
                _warn(quantized.row)
                if self._recipe.collection == "sequential":
                    set_weight(module, quantized.rounded.Q)
                first = last

    def _full(self, index: int, name: str) -> str:
        return f"{self._architecture.blocks}.{index}.{name}"

    def _stacks(self, index: int, group: list[str], block: nn.Module, hessians: Hessians) -> Iterator[Stack]:
        """Debiased modules first, then the others; of each, those with the same grid together."""
        term = self._term
        debiased = [name for name in group if term is not None and term.applies(index, name)]
        B = term.weight.matrix(hessians) if term is not None and debiased else None
        for names, matrix in ((debiased, B), ([name for name in group if name not in debiased], None)):
            by_grid: dict[Grid, list[str]] = {}
            for name in names:
                grid = grid_of(self._recipe, self._full(index, name), static=self._recipe.static_groups)
                by_grid.setdefault(grid, []).append(name)
            for grid, alike in by_grid.items():
                W = torch.cat([weight_of(linear(block, name)).float() for name in alike])
                yield Stack(alike, grid, W, matrix)

    def _solve(self, index: int, stack: Stack, hessians: Hessians) -> Solution:
        H, B, diagnostics = hessians.H, stack.B, self._compute.diagnostics
        mode = self._term.mode if self._term is not None else Mode.exact
        rounding = (stack.grid, mode, self._recipe.damping, self._recipe.act_order)
        with located(self._full(index, "/".join(stack.names))):
            solved = solve(stack.W, H, B, *rounding, diagnostics)
            compare = diagnostics and self._compute.alpha_zero and B is not None
            plain = solve(stack.W, H, None, *rounding) if compare else None
        return Solution(stack, solved, plain, None if B is None else float(B.trace() / H.trace()))

    def _quantized(self, index: int, name: str, solution: Solution, rows: slice, hessians: Hessians) -> QuantizedModule:
        """One module of a solved stack, whose rows are `rows`."""
        solved, W = solution.solved, solution.stack.W[rows]
        rounded = solved.rounded.rows(rows.start, rows.stop)
        with located(self._full(index, name)):
            require_scales(rounded, solved.target[rows])
        table = self._contributions(index, name, solution, rows, rounded.Q, hessians)
        row = ModuleRow(
            name=self._full(index, name),
            block=index,
            kind=self._architecture.kind(name),
            status=_status(solved),
            debiased=solution.bias_ratio is not None,
            damping=solved.damping,
            damping_tried=solved.tried,
            bias_ratio=solution.bias_ratio,
            top_eigenvalue=solved.top_eigenvalue,
            dead_columns=solved.dead,
            penalty=Penalty.model_validate(table[0].model_dump(include=set(Penalty.model_fields))) if table else None,
            **changes(W, rounded.Q, solved.target[rows], None if solved.fallback else rounded.loss),
        )
        return QuantizedModule(rounded, row, table)

    def _contributions(self, index: int, name: str, solution: Solution, rows: slice, Q: Tensor, hessians: Hessians) -> list[Contribution]:
        """Where in a debiased module the penalty sits; none if the diagnostics are off."""
        if not self._compute.diagnostics or solution.stack.B is None or hessians.C is None:
            return []
        states = {"weight": solution.stack.W[rows], "target": solution.solved.target[rows], "quantized": Q}
        if solution.plain is not None:
            states["alpha_zero"] = solution.plain.rounded.rows(rows.start, rows.stop).Q
        return module_contributions(self._full(index, name), index, self._architecture.kind(name), states, hessians.C, hessians.pairs)


def _status(solved: Solved) -> Status:
    if solved.fallback:
        return Status.fallback_rtn
    return Status.damped if any(len(ladder) > 1 for ladder in solved.tried.values()) else Status.ok


def _warn(row: ModuleRow) -> None:
    """Say at once what the record says later."""
    ladders = "; ".join(f"{matrix}: {len(ladder)} tries up to {ladder[-1]:.4f}" for matrix, ladder in row.damping_tried.items())
    if row.status is Status.fallback_rtn:
        log.warning("%s: rounded to nearest, no factorization succeeded (damping of %s)", row.name, ladders)
    elif row.status is Status.damped:
        log.warning("%s: needed more damping (%s)", row.name, ladders)
