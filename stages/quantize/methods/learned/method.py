"""Learned rounding and fair rounding: what they read and need, and how they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fairgate.contracts.records import Training
from fairgate.support.errors import FairgateError
from stages.quantize.methods.base import METHODS, Forecast, Inputs, Method, QuantizedModule, Store, register
from stages.quantize.methods.closed_form.method import ClosedForm
from stages.quantize.methods.learned.settings import FairRound, Learned

if TYPE_CHECKING:
    from pathlib import Path

    from stages.quantize.core.compute import Compute
    from stages.quantize.methods.learned.data import Draw, Slots
    from stages.quantize.model.streamed import Streamed

TEXTS, PAIRS, CONTEXT = "training.jsonl", "pairs.jsonl", "context_pairs.jsonl"


L = TypeVar("L", bound=Learned)


@dataclass(frozen=True)
class LearningData:
    """What the closed form at the start reads (None: nothing), what the steps draw from, and the
    tokens of a step.
    """

    start: Any
    draw: Draw
    slots: Slots


class LearningMethod(Method[L, LearningData]):
    """What both methods share; they differ in the pairs of a step."""

    def pair_files(self, recipe: L) -> list[str]:
        """The files that the pairs of a step are drawn from; none means a step has no pairs."""
        return []

    def fair(self, recipe: L) -> FairRound | None:
        """The settings of the pairs' loss; None means general text alone."""
        return None

    def files(self, recipe: L) -> list[str]:
        return [*METHODS[recipe.start].files(recipe.closed_form()), TEXTS, *self.pair_files(recipe)]

    def read(self, recipe: L, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[LearningData]:
        from stages.quantize.methods.learned.data import read_draw

        start = METHODS[recipe.start].read(recipe.closed_form(), base, calibration, batch_tokens=batch_tokens, seed=seed)
        fair = self.fair(recipe)
        pairs = [calibration / name for name in self.pair_files(recipe)]
        drawn = read_draw(base, calibration / TEXTS, pairs, seed, recipe.text_tokens, fair.pair_tokens if fair else None)
        draw: Draw = drawn.data
        return Inputs(
            LearningData(start.data, draw, draw.slots(recipe.texts, fair.pairs if fair else 0)),
            pairs=max(start.pairs, drawn.pairs),
            texts=max(start.texts, drawn.texts),
            tokens=max(start.tokens, drawn.tokens),
            notes=[*start.notes, *(note for note in drawn.notes if note not in start.notes)],
        )

    def fit(self, recipe: L, source: Streamed, compute: Compute, data: LearningData, limit: float) -> Compute:
        return METHODS[recipe.start].fit(recipe.closed_form(), source, compute, data.start, limit)

    def forecast(self, recipe: L, source: Streamed, compute: Compute, data: LearningData) -> Forecast:
        from stages.quantize.methods.learned.forecast import forecast

        start = METHODS[recipe.start].forecast(recipe.closed_form(), source, compute, data.start)
        return forecast(source, recipe, compute, start, data.slots)

    def leaner(self, recipe: L, compute: Compute) -> tuple[L, Compute]:
        _, least = super().leaner(recipe, compute)
        return recipe.model_copy(update={"recompute": True}), least

    def run(self, recipe: L, source: Streamed, compute: Compute, data: LearningData, store: Store) -> Training:
        from stages.quantize.methods.learned.learning import learn

        less = "set `quantize.low_memory: true`, or a smaller `quantize.batch_tokens`"
        with _enough_memory("in the closed form that it starts from", recipe, less):
            begun = self.begun(recipe, source, compute, data)
        fewer = "take fewer `texts` and `pairs` a step"
        with _enough_memory("while learning", recipe, fewer if recipe.recompute else f"set `recompute: true`, or {fewer}"):
            outcome = learn(source, recipe, self.fair(recipe), begun, data.draw, compute, store.keep, store.restored)
        for block in outcome.blocks:
            store.add(block)
        state = outcome.state
        return Training(steps=state.step, asked=recipe.steps, stopped=state.stopped, history=state.history)

    def begun(self, recipe: L, source: Streamed, compute: Compute, data: LearningData) -> list[QuantizedModule]:
        """The modules in the closed form that the steps start from; none where that is the nearest
        codes.
        """
        if recipe.starts_from_nearest:
            return []
        start = cast(ClosedForm[Any], METHODS[recipe.start])
        blocks = start.blocks(recipe.closed_form(), source, compute, data.start)
        return [module for block in blocks for module in block.modules]


@register
class LearnedMethod(LearningMethod[Learned]):
    name = "learned"
    settings = Learned


@register
class FairRoundMethod(LearningMethod[FairRound]):
    name = "fair_round"
    settings = FairRound

    def pair_files(self, recipe: FairRound) -> list[str]:
        return [PAIRS, *([CONTEXT] if recipe.context else [])]

    def fair(self, recipe: FairRound) -> FairRound:
        return recipe


@contextmanager
def _enough_memory(when: str, recipe: Learned, remedy: str) -> Iterator[None]:
    from fairgate.support.devices import out_of_memory

    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise FairgateError(f"out of memory {when}", where=f"recipe: {recipe.method}", remedy=remedy) from None
