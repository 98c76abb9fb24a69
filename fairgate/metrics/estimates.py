"""From an item table to numbers: the items of a benchmark as arrays, every metric of them with its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fairgate.metrics.benchmarks import benchmark_of, refuse
from fairgate.metrics.statistic import Array
from fairgate.support.errors import BadRecord, FairgateError, UnknownName

_EVALUATE = "run `dvc repro evaluate` to write it again"


@dataclass(frozen=True)
class Items:
    """The rows of one benchmark as arrays, in the order of `item_id`.

    loglik [n, k] summed log-likelihood in nats (-inf where an item has fewer options than k); tokens, chars [n, k] (1 there);
    options [n]; gold [n] or None; covariate [n], NaN for none; cluster [n] codes below `clusters`; group, subgroup [n] strings or None.
    Of generated text, with no options to score: given [n] the answer that was read, -1 for none (None: a benchmark without answers);
    score [n], NaN for none; words [n] of the text; status [n].
    """

    benchmark: str
    ids: list[str]
    loglik: Array
    tokens: Array
    chars: Array | None
    options: npt.NDArray[np.int64]
    gold: npt.NDArray[np.int64] | None
    covariate: Array
    cluster: npt.NDArray[np.int64]
    clusters: int
    group: npt.NDArray[np.object_]
    subgroup: npt.NDArray[np.object_]
    given: npt.NDArray[np.int64] | None
    score: Array
    words: npt.NDArray[np.int64]
    status: npt.NDArray[np.object_]

    @classmethod
    def of(cls, table: pa.Table, benchmark: str) -> Items:
        """The items of one benchmark.

        Raises:
            UnknownName: a benchmark that the engine does not know, or that the table does not hold.
            BadRecord: a wrong number of options, a non-finite log-likelihood, an option without tokens, generated text without status.
        """
        definition = benchmark_of(benchmark)
        table = table.filter(pc.equal(table["benchmark"], benchmark)).sort_by("item_id").combine_chunks()
        if table.num_rows == 0:
            raise FairgateError(f"benchmark {benchmark!r} was not evaluated", where="item table", remedy="add it to evaluate.tasks")
        ids = table["item_id"].to_pylist()
        loglik, options = _padded(table["option_loglik"], -np.inf)
        tokens, token_options = _padded(table["n_tokens"], 1.0)
        present = np.arange(loglik.shape[1]) < options[:, None]
        status = np.array(table["status"].to_pylist(), dtype=object)
        if definition.generated:
            refuse(np.array([one is None for one in status]), ids, benchmark, "generated text has no status")
        else:
            wrong = options != definition.options if definition.options else options < 2
            refuse(wrong, ids, benchmark, f"has not the {definition.options or '2 or more'} options of its benchmark")
        refuse(token_options != options, ids, benchmark, "n_tokens and option_loglik differ in length")
        refuse((present & ~np.isfinite(loglik)).any(1), ids, benchmark, "log-likelihood is not finite")
        refuse((tokens < 1).any(1), ids, benchmark, "an option without scored tokens")
        names, cluster = np.unique(np.array(table["cluster"].to_pylist(), dtype=object).astype(str), return_inverse=True)
        return cls(
            benchmark=benchmark,
            ids=ids,
            loglik=loglik,
            tokens=tokens,
            chars=None if table["n_chars"].null_count else _padded(table["n_chars"], 1.0)[0],
            options=options,
            gold=None if table["gold"].null_count else table["gold"].to_numpy().astype(np.int64),
            covariate=np.array(table["covariate"].to_pylist(), dtype=np.float64),
            cluster=cluster.astype(np.int64),
            clusters=len(names),
            group=np.array(table["group"].to_pylist(), dtype=object),
            subgroup=np.array(table["subgroup"].to_pylist(), dtype=object),
            given=None if not definition.generated or table["answer"].null_count else table["answer"].to_numpy().astype(np.int64),
            score=np.array([np.nan if one is None else one for one in table["score"].to_pylist()], dtype=np.float64),
            words=np.array([len((text or "").split()) for text in table["text"].to_pylist()], dtype=np.int64),
            status=status,
        )

    @cached_property
    def group_codes(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The names of groups, sorted, and for each item [n] the index of its own; -1 for none."""
        return _codes(self.group)

    @cached_property
    def subgroup_codes(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """As `group_codes`, of subgroups."""
        return _codes(self.subgroup)

    @property
    def groups(self) -> list[str]:
        """The groups that occur, sorted; items without a group belong to none."""
        return self.group_codes[0]

    def inside(self, group: str | None = None, subgroup: str | None = None) -> npt.NDArray[np.bool_]:
        """[n] whether an item is of the group and subgroup; None: of any. UnknownName where there is none."""
        inside = np.ones(len(self.ids), dtype=bool)
        for kind, name, (names, codes) in (("group", group, self.group_codes), ("subgroup", subgroup, self.subgroup_codes)):
            if name is not None:
                known = {names[code] for code in np.unique(codes[inside]) if code >= 0}
                if name not in known:
                    raise UnknownName.of(kind, name, known, where=self.benchmark)
                inside &= codes == names.index(name)
        return inside

    def subgroups(self, group: str | None = None) -> list[str]:
        """The subgroups that occur (in a group), sorted."""
        names, codes = self.subgroup_codes
        return [names[code] for code in np.unique(codes[self.inside(group)]) if code >= 0]

    @property
    def strata(self) -> npt.NDArray[np.int64]:
        """[clusters] code of each cluster's group: what a stratified bootstrap keeps apart."""
        codes = np.zeros(self.clusters, dtype=np.int64)
        codes[self.cluster] = self.group_codes[1] + 1
        return codes

    @property
    def per_token(self) -> Array:
        """[n, k] mean log-likelihood per token, nats."""
        return self.loglik / self.tokens

    @property
    def biased(self) -> npt.NDArray[np.bool_] | None:
        """[n] whether the stereotype is preferred (a tie is not); None for a benchmark without sides."""
        prefers = benchmark_of(self.benchmark).prefers
        return prefers(self) if prefers else None

    @property
    def answer(self) -> npt.NDArray[np.int64] | None:
        """[n] preferred side (0 stereotype, 1 anti-stereotype), likeliest option or the answer given (-1: none); None for plain text."""
        definition = benchmark_of(self.benchmark)
        if definition.generated:
            return self.given
        if definition.chooses:
            return definition.chooses(self)
        biased = self.biased
        if biased is not None:
            return np.where(biased, 0, 1).astype(np.int64)
        return self.loglik.argmax(1).astype(np.int64) if self._alternatives else None

    @property
    def _alternatives(self) -> bool:
        return self.loglik.shape[1] > 1 and benchmark_of(self.benchmark).alternatives

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """[n] whether there is an answer: a generated text may hold none that can be read."""
        return np.ones(len(self.ids), dtype=bool) if self.given is None else self.given >= 0

    @property
    def entropy(self) -> Array | None:
        """[n] entropy of softmax(option_loglik) divided by log(options): 0 certain .. 1 uniform; None without alternatives."""
        if not self._alternatives:
            return None
        p = np.exp(self.loglik - self.loglik.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return np.asarray(-(p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(self.options))


def _codes(column: npt.NDArray[np.object_]) -> tuple[list[str], npt.NDArray[np.int64]]:
    names = sorted({name for name in column if name is not None})
    code = {None: -1} | {name: i for i, name in enumerate(names)}
    return names, np.array([code[name] for name in column], dtype=np.int64)


def _padded(column: pa.ChunkedArray, fill: float) -> tuple[Array, npt.NDArray[np.int64]]:
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    out = np.full((len(counts), int(counts.max(initial=1))), fill)
    out[np.arange(out.shape[1]) < counts[:, None]] = pc.cast(pc.list_flatten(column), pa.float64()).to_numpy()  # null becomes NaN
    return out, counts


def benchmarks_of(table: pa.Table) -> list[str]:
    """The benchmarks that occur in an item table, sorted."""
    return sorted(table["benchmark"].unique().to_pylist())


@dataclass(frozen=True)
class Estimate:
    """One number with what it rests on. `group` and `subgroup` are None for all; `stderr` is None below two clusters."""

    metric: str
    group: str | None
    subgroup: str | None
    value: float
    stderr: float | None
    items: int
    clusters: int

    @property
    def name(self) -> str:
        return self.metric + (f".{self.group}" if self.group else "") + (f"/{self.subgroup}" if self.subgroup else "")


def estimates(table: pa.Table, benchmarks: Sequence[str] | None = None) -> list[Estimate]:
    """Every metric of every benchmark in the table, overall, per group, and per subgroup (of all groups), for one model.

    A gap between subgroups has no value in one of them. What the items do not define (a gap between two sexes where one of them never
    answered) is left out.

    Raises:
        BadRecord: an infinite value, or an item that breaks the contract.
    """
    out = []
    for name in benchmarks if benchmarks is not None else benchmarks_of(table):
        items = Items.of(table, name)
        parts = [(None, None), *((group, None) for group in items.groups), *((None, subgroup) for subgroup in items.subgroups())]
        for key, statistic in benchmark_of(name).statistics.items():
            for group, subgroup in parts if statistic.divisible else parts[: 1 + len(items.groups)]:
                part = statistic.components(items, group=group, subgroup=subgroup)
                estimate = Estimate(f"{name}.{key}", group, subgroup, part.value, part.stderr, part.items, part.clusters)
                if np.isinf(estimate.value):
                    raise BadRecord(f"value {estimate.value} is not finite ({part.items} items)", where=estimate.name, remedy=_EVALUATE)
                if not np.isnan(estimate.value):
                    out.append(estimate)
    return out


def metrics_of(table: pa.Table) -> dict[str, float]:
    """Flat numbers: `stereoset.ss`, `stereoset.ss.race`, `crows_pairs.pct_stereotype/stereo`; `<name>.stderr` from two clusters on."""
    flat: dict[str, float] = {}
    for estimate in estimates(table):
        flat[estimate.name] = estimate.value
        if estimate.stderr is not None:
            flat[f"{estimate.name}.stderr"] = estimate.stderr
    return flat


def derive(table: pa.Table) -> pa.Table:
    """The table with `answer`, `correct`, `biased` and `entropy` filled from log-likelihoods or the answer given; rows keep their order."""
    found: dict[tuple[str, str], tuple[Any, Any, Any, Any]] = {}
    for name in benchmarks_of(table):
        items = Items.of(table, name)
        empty = [None] * len(items.ids)
        answer = empty if items.answer is None else items.answer.tolist()
        biased = empty if items.biased is None else items.biased.tolist()
        correct = empty if items.gold is None or items.answer is None else (items.answer == items.gold).tolist()
        if items.given is not None:  # what was not answered is neither
            biased, correct = ([one if a >= 0 else None for one, a in zip(x, items.given, strict=True)] for x in (biased, correct))
        entropy = empty if items.entropy is None else items.entropy.tolist()
        rows = zip(answer, correct, biased, entropy, strict=True)
        found.update({(name, item): row for item, row in zip(items.ids, rows, strict=True)})
    keys = zip(table["benchmark"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    columns = list(zip(*(found[key] for key in keys), strict=True))
    for column, values in zip(("answer", "correct", "biased", "entropy"), columns, strict=True):
        index = table.schema.get_field_index(column)
        table = table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
    return table
