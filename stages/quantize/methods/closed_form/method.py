"""GPTQ with or without a fairness term: what both do with calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stages.quantize.methods.base import Block, Forecast, Method, Store
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantize.core.compute import Compute
    from stages.quantize.methods.closed_form.calibration import Calibration
    from stages.quantize.methods.closed_form.groups import FairnessTerm
    from stages.quantize.model.streamed import Streamed

S = TypeVar("S", bound=CalibratedRecipe)


class ClosedForm(Method[S, "Calibration"]):
    """A method that goes through the model with calibration data, block by block."""

    def files(self, recipe: S) -> list[str]:
        return ["pairs.jsonl", "text.jsonl"]

    def term(self, recipe: S, source: Streamed, compute: Compute, data: Calibration) -> FairnessTerm | None:
        """The fairness term; None means plain GPTQ."""
        return None

    def fit(self, recipe: S, source: Streamed, compute: Compute, data: Calibration, limit: float) -> Compute:
        from stages.quantize.methods.closed_form.forecast import batches_that_fit

        return replace(compute, waiting=batches_that_fit(source, recipe, compute, data.batches, limit))

    def forecast(self, recipe: S, source: Streamed, compute: Compute, data: Calibration) -> Forecast:
        from stages.quantize.methods.closed_form.forecast import forecast

        return forecast(source, recipe, compute, data.batches)

    def blocks(
        self, recipe: S, source: Streamed, compute: Compute, data: Calibration, start: int = 0, hidden: Sequence[Tensor] = ()
    ) -> Iterator[Block]:
        """The quantized blocks from `start` on. `hidden` are the states that enter it, one [rows,
        L, d] a batch; none: the embeddings.
        """
        from stages.quantize.methods.closed_form.blocks import quantized_blocks

        return quantized_blocks(source, recipe, data, compute, self.term(recipe, source, compute, data), start, hidden)

    def run(self, recipe: S, source: Streamed, compute: Compute, data: Calibration, store: Store) -> None:
        from stages.quantize.methods.closed_form.retry import Quantizer

        Quantizer(partial(self.blocks, recipe, source), recipe, source, store).run(compute, data)

    def export_keys(self, recipe: S) -> dict[str, Any]:
        return {
            "damp_percent": recipe.damping,
            "true_sequential": recipe.collection == "sequential",
            "static_groups": recipe.static_groups,
        }
