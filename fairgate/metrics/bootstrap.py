"""Intervals: a cluster bootstrap that all metrics of a benchmark share.

It keeps comparisons paired: draw i of the candidate and draw i of the reference resample the same
clusters, and what is common to both cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from fairgate.metrics.items import Array
from fairgate.metrics.statistic import Components

# Weights held at once (32 MB as doubles). The random stream depends on it, so it is a constant.
_CHUNK = 4_000_000


def weights(strata: npt.NDArray[np.int64], draws: int, seed: int) -> Iterator[Array]:
    """How often each cluster is drawn within its stratum: [m, clusters], in chunks of m draws.

    A stratum with a single cluster joins the largest one. Alone it would be constant, and hide its
    variance.
    """
    strata = strata.copy()
    codes, counts = np.unique(strata, return_counts=True)
    strata[np.isin(strata, codes[counts < 2])] = codes[counts.argmax()]
    members = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(strata))
    for start in range(0, draws, rows):
        m = min(rows, draws - start)
        chunk = np.empty((m, len(strata)))
        offsets = np.arange(m)[:, None]
        for member in members:
            picks = generator.integers(len(member), size=(m, len(member))) + offsets * len(member)
            chunk[:, member] = np.bincount(picks.ravel(), minlength=m * len(member)).reshape(m, -1)
        yield chunk


def bootstrap(components: Sequence[Components], strata: npt.NDArray[np.int64], *, draws: int, seed: int) -> list[Array]:
    """Values [draws] of each component under the same resampled clusters."""
    numerators = np.hstack([c.numerators for c in components])
    denominators = np.hstack([c.denominators for c in components])
    sums = [(w @ numerators, w @ denominators) for w in weights(strata, draws, seed)]
    top, bottom = np.vstack([s[0] for s in sums]), np.vstack([s[1] for s in sums])
    edges = np.cumsum([0, *(c.numerators.shape[1] for c in components)])
    return [c.of_sums(top[:, a:b], bottom[:, a:b]) for c, a, b in zip(components, edges[:-1], edges[1:], strict=True)]


def level(alpha: float, clusters: int) -> float:
    """Percentile level whose bootstrap quantile is a one-sided bound of error `alpha`.

    With G clusters the bootstrap's scatter of a mean is too small by sqrt((G - 1) / G), and its
    quantiles are normal where Student's belong. Moving the level corrects both ("expanded
    percentile", Hesterberg 2015). As G grows, the level tends to alpha.
    """
    g = clusters
    return float(norm.cdf(np.sqrt(g / (g - 1)) * t.ppf(alpha, g - 1)))


def error(quantile: float, clusters: int) -> float:
    """The inverse of `level`: the one-sided p-value of a bootstrap tail share."""
    g = clusters
    return float(t.cdf(norm.ppf(quantile) / np.sqrt(g / (g - 1)), g - 1))


def lower(draws: Array, alpha: float, clusters: int) -> float:
    """One-sided lower bound with error `alpha`."""
    return float(np.quantile(draws, level(alpha, clusters)))


def upper(draws: Array, alpha: float, clusters: int) -> float:
    """One-sided upper bound with error `alpha`."""
    return float(np.quantile(draws, 1 - level(alpha, clusters)))
