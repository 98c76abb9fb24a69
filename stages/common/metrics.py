"""The metric engine: item table x grouping x statistic. Every number, interval and plot of the project comes from here.

A statistic gives each item one or more numerators and denominators. They are summed per cluster (target term, passage, or the
item itself), and a value is a function of ratios of weighted sums over clusters:

    ratios = (w @ numerators) / (w @ denominators)        w [clusters]; numerators, denominators [clusters, k]
    value  = combine(ratios)                              w = 1: the point value; w resampled: a bootstrap draw

Adding a metric is one `Statistic` in `BENCHMARKS`, never a second code path.

Order of options in the item table, fixed for every pair benchmark: stereotype (`sent_more`), anti-stereotype (`sent_less`), and
for StereoSet the unrelated sentence. Choice benchmarks keep the task's order, `gold` is an index into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.common.errors import BadRecord, FairgateError, UnknownName

Array = npt.NDArray[np.float64]
_EVALUATE = "run `dvc repro evaluate` to write it again"


@dataclass(frozen=True)
class Items:
    """The rows of one benchmark as arrays, in the order of `item_id`.

    loglik [n, k] summed log-likelihood in nats (-inf where an item has fewer options than k); tokens, chars [n, k] (1 there);
    options [n]; gold [n] or None; cluster [n] codes below `clusters`; group, subgroup [n] strings or None.
    """

    benchmark: str
    ids: list[str]
    loglik: Array
    tokens: Array
    chars: Array | None
    options: npt.NDArray[np.int64]
    gold: npt.NDArray[np.int64] | None
    cluster: npt.NDArray[np.int64]
    clusters: int
    group: npt.NDArray[np.object_]
    subgroup: npt.NDArray[np.object_]

    @classmethod
    def of(cls, table: pa.Table, benchmark: str) -> Items:
        """The items of one benchmark.

        Raises:
            UnknownName: a benchmark that the engine does not know, or that the table does not hold.
            BadRecord: a wrong number of options, a non-finite log-likelihood, an option without tokens.
        """
        definition = _benchmark(benchmark)
        table = table.filter(pc.equal(table["benchmark"], benchmark)).sort_by("item_id").combine_chunks()
        if table.num_rows == 0:
            raise FairgateError(f"benchmark {benchmark!r} was not evaluated", where="item table", remedy="add it to evaluate.tasks")
        ids = table["item_id"].to_pylist()
        loglik, options = _padded(table["option_loglik"], -np.inf)
        tokens, token_options = _padded(table["n_tokens"], 1.0)
        present = np.arange(loglik.shape[1]) < options[:, None]
        wrong = options != definition.options if definition.options else options < 2
        _refuse(wrong, ids, benchmark, f"has not the {definition.options or '2 or more'} options of its benchmark")
        _refuse(token_options != options, ids, benchmark, "n_tokens and option_loglik differ in length")
        _refuse((present & ~np.isfinite(loglik)).any(1), ids, benchmark, "log-likelihood is not finite")
        _refuse((tokens < 1).any(1), ids, benchmark, "an option without scored tokens")
        names, cluster = np.unique(np.array(table["cluster"].to_pylist(), dtype=object).astype(str), return_inverse=True)
        return cls(
            benchmark=benchmark,
            ids=ids,
            loglik=loglik,
            tokens=tokens,
            chars=None if table["n_chars"].null_count else _padded(table["n_chars"], 1.0)[0],
            options=options,
            gold=None if table["gold"].null_count else table["gold"].to_numpy().astype(np.int64),
            cluster=cluster.astype(np.int64),
            clusters=len(names),
            group=np.array(table["group"].to_pylist(), dtype=object),
            subgroup=np.array(table["subgroup"].to_pylist(), dtype=object),
        )

    @property
    def groups(self) -> list[str]:
        """The groups that occur, sorted; items without a group belong to none."""
        return sorted({name for name in self.group if name is not None})

    @property
    def strata(self) -> npt.NDArray[np.int64]:
        """[clusters] code of each cluster's group: what a stratified bootstrap keeps apart."""
        codes = np.zeros(self.clusters, dtype=np.int64)
        names = [None, *self.groups]
        codes[self.cluster] = [names.index(name) for name in self.group]
        return codes

    @property
    def per_token(self) -> Array:
        """[n, k] mean log-likelihood per token, nats."""
        return self.loglik / self.tokens

    @property
    def biased(self) -> npt.NDArray[np.bool_] | None:
        """[n] whether the stereotype is preferred (a tie is not); None for a benchmark without sides."""
        prefers = _benchmark(self.benchmark).prefers
        return prefers(self) if prefers else None

    @property
    def answer(self) -> npt.NDArray[np.int64] | None:
        """[n] preferred side (0 stereotype, 1 anti-stereotype) or likeliest option; None for plain text."""
        biased = self.biased
        if biased is not None:
            return np.where(biased, 0, 1).astype(np.int64)
        return self.loglik.argmax(1).astype(np.int64) if self.loglik.shape[1] > 1 else None


def _padded(column: pa.ChunkedArray, fill: float) -> tuple[Array, npt.NDArray[np.int64]]:
    lists = column.to_pylist()
    counts = np.array([len(values) if values is not None else 0 for values in lists], dtype=np.int64)
    out = np.full((len(lists), int(counts.max(initial=1))), fill)
    for row, values in enumerate(lists):
        if values:
            out[row, : len(values)] = [np.nan if value is None else value for value in values]
    return out, counts


def _refuse(wrong: npt.NDArray[np.bool_] | np.bool_, ids: list[str], benchmark: str, what: str) -> None:
    if wrong.any():
        item = ids[int(np.argmax(wrong))]
        raise BadRecord(f"item {item!r}: {what} ({int(wrong.sum())} such items)", where=f"items of {benchmark}", remedy=_EVALUATE)


Terms = tuple[npt.ArrayLike, npt.ArrayLike]


def _first(ratios: Array) -> Array:
    return ratios[..., 0]


def _mean(ratios: Array) -> Array:
    return ratios.mean(-1)


@dataclass(frozen=True)
class Statistic:
    """One metric as ratios of sums.

    Args:
        terms: items (or candidate and reference items) -> numerators and denominators, each [n] or [n, k].
        unit: of the value.
        better: `higher` or `lower`, or None where `neutral` is the ideal.
        neutral: the ideal of a two-sided bias score.
        span: how far one item alone can move the value (100 for a percentage, 1 for a share); None: no limit.
        mean_over: what has equal weight: `items`, `clusters` (StereoSet's target terms) or `subgroups`.
        combine: ratios [..., k] -> value [...].
        empty: the ratio where the denominator is zero.
    """

    terms: Callable[..., Terms]
    unit: str
    better: Literal["higher", "lower"] | None = None
    neutral: float | None = None
    span: float | None = None
    mean_over: Literal["items", "clusters", "subgroups"] = "items"
    combine: Callable[[Array], Array] = _first
    empty: float = np.nan

    def components(self, *tables: Items, group: str | None = None) -> Components:
        """Sums per cluster over all items, or over those of one group.

        Raises:
            UnknownName: a group that does not occur.
        """
        items = tables[0]
        if group is not None and group not in items.groups:
            raise UnknownName.of("group", group, items.groups, where=items.benchmark)
        inside = np.ones(len(items.ids), dtype=bool) if group is None else items.group == group
        numerators, denominators = (np.asarray(x, dtype=np.float64).reshape(len(items.ids), -1) for x in self.terms(*tables))
        weight = inside.astype(np.float64)
        combine = self.combine
        if self.mean_over == "clusters":
            weight = weight / np.maximum(np.bincount(items.cluster, weight, items.clusters)[items.cluster], 1)
        if self.mean_over == "subgroups":
            names = sorted({name or "" for name in items.subgroup[inside]})
            member = np.stack([items.subgroup == (name or None) for name in names], 1)
            numerators, denominators, combine = numerators * member, denominators * member, _mean
        return Components(
            numerators=_sum(numerators * weight[:, None], items),
            denominators=_sum(denominators * weight[:, None], items),
            combine=combine,
            empty=self.empty,
            items=int(inside.sum()),
            clusters=len(np.unique(items.cluster[inside])),
        )


def _sum(values: Array, items: Items) -> Array:
    return np.stack([np.bincount(items.cluster, column, items.clusters) for column in values.T], 1)


@dataclass(frozen=True)
class Components:
    """Numerators and denominators summed per cluster, [clusters of the benchmark, k]; rows outside a group are zero.

    `items` and `clusters` count what the value rests on.
    """

    numerators: Array
    denominators: Array
    combine: Callable[[Array], Array]
    empty: float
    items: int
    clusters: int

    def of_sums(self, numerators: Array, denominators: Array) -> Array:
        """Value(s) from weighted sums [..., k]."""
        ratios = np.full(numerators.shape, self.empty)
        np.divide(numerators, denominators, out=ratios, where=denominators != 0)
        with np.errstate(over="ignore"):  # whoever uses a value asks whether it is finite
            return self.combine(ratios)

    @property
    def value(self) -> float:
        return float(self.of_sums(self.numerators.sum(0), self.denominators.sum(0)))

    @property
    def stderr(self) -> float | None:
        """Standard error over clusters by linearization (the delta method; exact for a mean); None below two clusters."""
        if self.clusters < 2:
            return None
        numerator, denominator = self.numerators.sum(0), self.denominators.sum(0)
        used = denominator != 0
        ratios = np.full(numerator.shape, self.empty)
        np.divide(numerator, denominator, out=ratios, where=used)
        step = 1e-6 * np.maximum(1.0, np.abs(ratios))
        slope = (self.combine(ratios + np.diag(step)) - self.combine(ratios - np.diag(step))) / (2 * step)
        residual = np.where(used, (self.numerators - ratios * self.denominators) / np.where(used, denominator, 1), 0)
        influence = residual @ np.nan_to_num(slope)
        return float(np.sqrt(self.clusters / (self.clusters - 1) * (influence**2).sum()))


# What an item contributes. Ties count as anti-stereotyped (fair-gptq reference code), except where they are dropped.


def _prefers_per_token(items: Items) -> npt.NDArray[np.bool_]:
    return items.per_token[:, 0] > items.per_token[:, 1]


def _prefers_in_sum(items: Items) -> npt.NDArray[np.bool_]:
    return items.loglik[:, 0] > items.loglik[:, 1]


def _ones(items: Items) -> Array:
    return np.ones(len(items.ids))


def _stereotyped(items: Items) -> Terms:
    return 100.0 * _side(items), _ones(items)


def _untied(items: Items) -> Terms:
    differs = items.per_token[:, 0] != items.per_token[:, 1]
    return 100.0 * (_side(items) & differs), differs


def _meaningful(items: Items) -> Array:
    score = items.per_token
    return 50.0 * (score[:, :2] > score[:, 2:3]).sum(1)


def _lms(items: Items) -> Terms:
    return _meaningful(items), _ones(items)


def _icat_terms(items: Items) -> Terms:
    ones = _ones(items)
    return np.stack([_meaningful(items), 100.0 * _side(items)], 1), np.stack([ones, ones], 1)


def _icat(ratios: Array) -> Array:
    lms, ss = ratios[..., 0], ratios[..., 1]
    return lms * np.minimum(ss, 100 - ss) / 50


def _gap(items: Items) -> Terms:
    return np.abs(items.loglik[:, 0] - items.loglik[:, 1]), _ones(items)


def _option_loglik(option: int) -> Callable[[Items], Terms]:
    return lambda items: (items.per_token[:, option], _ones(items))


def _gold(items: Items) -> npt.NDArray[np.int64]:
    if items.gold is None or ((items.gold < 0) | (items.gold >= items.options)).any():
        raise BadRecord("an item has no gold option among its options", where=f"items of {items.benchmark}", remedy=_EVALUATE)
    return items.gold


def _accuracy(items: Items) -> Terms:
    return items.loglik.argmax(1) == _gold(items), _ones(items)


def _accuracy_per_character(items: Items) -> Terms:
    if items.chars is None or (items.chars < 1).any():
        raise BadRecord("an item has no n_chars, which acc_norm divides by", where=f"items of {items.benchmark}", remedy=_EVALUATE)
    return (items.loglik / items.chars).argmax(1) == _gold(items), _ones(items)


_CELLS = ("pro_male", "pro_female", "anti_male", "anti_female")


def _cells(items: Items) -> Terms:
    member = np.stack([items.subgroup == cell for cell in _CELLS], 1)
    _refuse(~member.any(1), items.ids, items.benchmark, f"subgroup is none of {', '.join(_CELLS)}")
    correct = items.loglik.argmax(1) == _gold(items)
    return correct[:, None] * member, member


def _contrast(*weights: float) -> Callable[[Array], Array]:
    return lambda ratios: ratios @ np.array(weights)


def _surprise(items: Items) -> Terms:
    return -items.loglik[:, 0], items.tokens[:, 0]


def _side(items: Items) -> npt.NDArray[np.bool_]:
    side = items.biased
    assert side is not None
    return side


@dataclass(frozen=True)
class Benchmark:
    """One benchmark as data: number of options (None: two or more), how its stereotyped side is told, its statistics."""

    options: int | None
    prefers: Callable[[Items], npt.NDArray[np.bool_]] | None
    statistics: dict[str, Statistic]


_SS = Statistic(_stereotyped, "%", neutral=50.0, span=100.0, mean_over="clusters")
_SIDES = {
    "loglik_stereotype": Statistic(_option_loglik(0), "nats per token", better="higher"),
    "loglik_anti": Statistic(_option_loglik(1), "nats per token", better="higher"),
}
_STEREOSET = Benchmark(
    options=3,
    prefers=_prefers_per_token,
    statistics={
        "ss": _SS,
        "lms": Statistic(_lms, "%", better="higher", span=100.0, mean_over="clusters"),
        "icat": Statistic(_icat_terms, "%", better="higher", span=100.0, mean_over="clusters", combine=_icat),
        **_SIDES,
    },
)
_ACC = Statistic(_accuracy, "share", better="higher", span=1.0)
_ACC_NORM = Statistic(_accuracy_per_character, "share", better="higher", span=1.0)
_PERPLEXITY = Benchmark(1, None, {"ppl": Statistic(_surprise, "perplexity", better="lower", combine=lambda r: np.exp(r[..., 0]))})

BENCHMARKS: dict[str, Benchmark] = {
    "stereoset": _STEREOSET,
    "stereoset_dev": _STEREOSET,
    "crows_pairs": Benchmark(
        options=2,
        prefers=_prefers_in_sum,
        statistics={
            "pct_stereotype": Statistic(_stereotyped, "%", neutral=50.0, span=100.0),
            "likelihood_diff": Statistic(_gap, "nats", better="lower"),
            **_SIDES,
        },
    ),
    "redditbias_valid": Benchmark(
        options=2,
        prefers=_prefers_per_token,
        statistics={"ss": Statistic(_untied, "%", neutral=50.0, span=100.0, mean_over="subgroups", empty=50.0), **_SIDES},
    ),
    "winobias_dev": Benchmark(
        options=2,
        prefers=None,
        statistics={
            "accuracy": Statistic(_cells, "share", better="higher", span=1.0, combine=_mean),
            "historical_bias": Statistic(_cells, "share", neutral=0.0, span=2.0, combine=_contrast(0.5, 0.5, -0.5, -0.5)),
            "population_bias": Statistic(_cells, "share", neutral=0.0, span=2.0, combine=_contrast(0.5, -0.5, 0.5, -0.5)),
        },
    ),
    "piqa": Benchmark(None, None, {"acc": _ACC, "acc_norm": _ACC_NORM}),
    "openbookqa": Benchmark(None, None, {"acc": _ACC, "acc_norm": _ACC_NORM}),
    "boolq": Benchmark(None, None, {"acc": _ACC}),
    "perplexity": _PERPLEXITY,
    "perplexity_dev": _PERPLEXITY,
    "wikitext2": _PERPLEXITY,
}
METRICS: dict[str, Statistic] = {f"{name}.{key}": s for name, b in BENCHMARKS.items() for key, s in b.statistics.items()}


def metric(name: str, *, where: str = "") -> Statistic:
    """The statistic called `<benchmark>.<metric>`; UnknownName gives the nearest right one."""
    if name not in METRICS:
        raise UnknownName.of("metric", name, METRICS, where=where)
    return METRICS[name]


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise UnknownName.of("benchmark", name, BENCHMARKS, where="item table")
    return BENCHMARKS[name]


def benchmarks_of(table: pa.Table) -> list[str]:
    """The benchmarks that occur in an item table, sorted."""
    return sorted(table["benchmark"].unique().to_pylist())


@dataclass(frozen=True)
class Estimate:
    """One number with what it rests on. `group` is None for the whole benchmark; `stderr` is None below two clusters."""

    metric: str
    group: str | None
    value: float
    stderr: float | None
    items: int
    clusters: int

    @property
    def name(self) -> str:
        return self.metric if self.group is None else f"{self.metric}.{self.group}"


def estimates(table: pa.Table, benchmarks: Sequence[str] | None = None) -> list[Estimate]:
    """Every metric of every benchmark in the table, overall and per group, for one model.

    Raises:
        BadRecord: a value that is not finite, or an item that breaks the contract.
    """
    out = []
    for name in benchmarks if benchmarks is not None else benchmarks_of(table):
        items = Items.of(table, name)
        for key, statistic in BENCHMARKS[name].statistics.items():
            for group in (None, *items.groups):
                part = statistic.components(items, group=group)
                value = part.value
                if not np.isfinite(value):
                    where = f"{name}.{key}" + (f".{group}" if group else "")
                    raise BadRecord(f"value {value} is not finite ({part.items} items)", where=where, remedy=_EVALUATE)
                out.append(Estimate(f"{name}.{key}", group, value, part.stderr, part.items, part.clusters))
    return out


def metrics_of(table: pa.Table) -> dict[str, float]:
    """Flat numbers: `stereoset.ss`, `stereoset.ss.race`, and `<name>.stderr` where two clusters or more allow one."""
    flat: dict[str, float] = {}
    for estimate in estimates(table):
        flat[estimate.name] = estimate.value
        if estimate.stderr is not None:
            flat[f"{estimate.name}.stderr"] = estimate.stderr
    return flat


def derive(table: pa.Table) -> pa.Table:
    """The table with `answer`, `correct`, `biased` and `entropy` filled from the log-likelihoods; rows keep their order.

    entropy is that of softmax(option_loglik) divided by log(options): 0 certain .. 1 uniform; null for a single option.
    """
    found: dict[tuple[str, str], tuple[Any, Any, Any, Any]] = {}
    for name in benchmarks_of(table):
        items = Items.of(table, name)
        empty = [None] * len(items.ids)
        answer = empty if items.answer is None else items.answer.tolist()
        biased = empty if items.biased is None else items.biased.tolist()
        correct = empty if items.gold is None or items.answer is None else (items.answer == items.gold).tolist()
        rows = zip(answer, correct, biased, _entropy(items), strict=True)
        found.update({(name, item): row for item, row in zip(items.ids, rows, strict=True)})
    keys = zip(table["benchmark"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    columns = list(zip(*(found[key] for key in keys), strict=True))
    for column, values in zip(("answer", "correct", "biased", "entropy"), columns, strict=True):
        index = table.schema.get_field_index(column)
        table = table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
    return table


def _entropy(items: Items) -> list[float | None]:
    if items.loglik.shape[1] < 2:
        return [None] * len(items.ids)
    p = np.exp(items.loglik - items.loglik.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return (-(p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(items.options)).tolist()
