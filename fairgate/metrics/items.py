"""The items of one benchmark as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fairgate.support.errors import BadRecord, FairgateError, UnknownName

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
EVALUATE = "run `dvc repro evaluate` to write it again"


@dataclass(frozen=True)
class Items:
    """The rows of one benchmark as arrays, in the order of `item_id`.

    n is the number of items, k the largest number of options.

    Read from the table:
        benchmark  name of the benchmark
        ids        [n] item ids
        loglik     [n, k] summed log-likelihood in nats; -inf where an item has fewer than k options
        tokens     [n, k] scored tokens; 1 where there is no option
        chars      [n, k] characters, 1 where there is no option; None where the table has none
        options    [n] number of options
        gold       [n] index of the right option; None where the benchmark has none
        covariate  [n] a number that a metric needs besides; NaN for none
        cluster    [n] code of the item's cluster, below `clusters`
        group, subgroup  [n] names, or None
    Read from the table, of generated text (which has no options):
        given      [n] index of the answer that was read, -1 for none; None without answers
        score      [n] classifier's score; NaN for none
        words      [n] words of the text
        status     [n] how the text ended
    Derived by the benchmark (`Benchmark.interpret`):
        biased     [n] whether the stereotype is preferred (a tie is not); None without sides
        answer     [n] index of the chosen option, -1 where none can be read; None for plain text
        entropy    [n] entropy of softmax(loglik) over log(options): 0 certain .. 1 uniform; None
                   where the options are no alternatives
    """

    benchmark: str
    ids: list[str]
    loglik: Array
    tokens: Array
    chars: Array | None
    options: Ints
    gold: Ints | None
    covariate: Array
    cluster: Ints
    clusters: int
    group: npt.NDArray[np.object_]
    subgroup: npt.NDArray[np.object_]
    given: Ints | None
    score: Array
    words: Ints
    status: npt.NDArray[np.object_]
    biased: Mask | None = None
    answer: Ints | None = None
    entropy: Array | None = None

    @classmethod
    def of(cls, table: pa.Table, benchmark: str, *, options: int | None, generated: bool) -> Items:
        """The items of one benchmark, nothing derived yet.

        Args:
            table: an item table.
            benchmark: the name in its column `benchmark`.
            options: how many options every item must have; None means two or more.
            generated: whether the items are generated text, which has a status instead of options.

        Raises:
            FairgateError: the table has no item of the benchmark.
            BadRecord: a wrong number of options, a non-finite log-likelihood, an option without
                tokens, generated text without status.
        """
        table = table.filter(pc.equal(table["benchmark"], benchmark)).sort_by("item_id").combine_chunks()
        if table.num_rows == 0:
            raise FairgateError(f"benchmark {benchmark!r} was not evaluated", where="item table", remedy="add it to evaluate.tasks")
        ids = table["item_id"].to_pylist()
        loglik, counts = _padded(table["option_loglik"], -np.inf)
        tokens, token_counts = _padded(table["n_tokens"], 1.0)
        present = np.arange(loglik.shape[1]) < counts[:, None]
        status = np.array(table["status"].to_pylist(), dtype=object)
        if generated:
            refuse(np.array([value is None for value in status]), ids, benchmark, "generated text has no status")
        else:
            wrong = counts != options if options else counts < 2
            refuse(wrong, ids, benchmark, f"has not the {options or '2 or more'} options of its benchmark")
        refuse(token_counts != counts, ids, benchmark, "n_tokens and option_loglik differ in length")
        refuse((present & ~np.isfinite(loglik)).any(1), ids, benchmark, "log-likelihood is not finite")
        refuse((tokens < 1).any(1), ids, benchmark, "an option without scored tokens")
        names, cluster = np.unique(np.array(table["cluster"].to_pylist(), dtype=object).astype(str), return_inverse=True)
        return cls(
            benchmark=benchmark,
            ids=ids,
            loglik=loglik,
            tokens=tokens,
            chars=None if table["n_chars"].null_count else _padded(table["n_chars"], 1.0)[0],
            options=counts,
            gold=None if table["gold"].null_count else table["gold"].to_numpy().astype(np.int64),
            covariate=np.array(table["covariate"].to_pylist(), dtype=np.float64),
            cluster=cluster.astype(np.int64),
            clusters=len(names),
            group=np.array(table["group"].to_pylist(), dtype=object),
            subgroup=np.array(table["subgroup"].to_pylist(), dtype=object),
            given=None if not generated or table["answer"].null_count else table["answer"].to_numpy().astype(np.int64),
            score=np.array([np.nan if value is None else value for value in table["score"].to_pylist()], dtype=np.float64),
            words=np.array([len((text or "").split()) for text in table["text"].to_pylist()], dtype=np.int64),
            status=status,
        )

    @cached_property
    def group_codes(self) -> tuple[list[str], Ints]:
        """The names of groups, sorted, and for each item [n] the index of its own; -1 for none."""
        return _codes(self.group)

    @cached_property
    def subgroup_codes(self) -> tuple[list[str], Ints]:
        """As `group_codes`, of subgroups."""
        return _codes(self.subgroup)

    @property
    def groups(self) -> list[str]:
        """The groups that occur, sorted; items without a group belong to none."""
        return self.group_codes[0]

    def inside(self, group: str | None = None, subgroup: str | None = None) -> Mask:
        """[n] whether an item is of the group and subgroup; None means any.

        UnknownName: there is no such group or subgroup.
        """
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
    def strata(self) -> Ints:
        """[clusters] code of each cluster's group: what a stratified bootstrap keeps apart."""
        codes = np.zeros(self.clusters, dtype=np.int64)
        codes[self.cluster] = self.group_codes[1] + 1
        return codes

    @property
    def per_token(self) -> Array:
        """[n, k] mean log-likelihood per token, nats."""
        return self.loglik / self.tokens

    @property
    def answered(self) -> Mask:
        """[n] whether there is an answer: a generated text may hold none that can be read."""
        return np.ones(len(self.ids), dtype=bool) if self.given is None else self.given >= 0


def benchmarks_of(table: pa.Table) -> list[str]:
    """The benchmarks that occur in an item table, sorted."""
    return sorted(table["benchmark"].unique().to_pylist())


def refuse(wrong: Mask | np.bool_, ids: list[str], benchmark: str, what: str) -> None:
    """Raise BadRecord naming the first wrong item and how many there are."""
    if wrong.any():
        item = ids[int(np.argmax(wrong))]
        raise BadRecord(f"item {item!r}: {what} ({int(wrong.sum())} such items)", where=f"items of {benchmark}", remedy=EVALUATE)


def _codes(column: npt.NDArray[np.object_]) -> tuple[list[str], Ints]:
    names = sorted({name for name in column if name is not None})
    code = {None: -1} | {name: i for i, name in enumerate(names)}
    return names, np.array([code[name] for name in column], dtype=np.int64)


def _padded(column: pa.ChunkedArray, fill: float) -> tuple[Array, Ints]:
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    out = np.full((len(counts), int(counts.max(initial=1))), fill)
    out[np.arange(out.shape[1]) < counts[:, None]] = pc.cast(pc.list_flatten(column), pa.float64()).to_numpy()  # null becomes NaN
    return out, counts
