"""Metrics of WinoBias (Zhao et al. 2018).

All rest on the accuracy in the cells pro/anti-stereotyped x male/female.
"""

from __future__ import annotations

import numpy as np

from fairgate.benchmarks.families.answers import (
    answered,
    answers,
    right,
    share,
    unanswered,
)
from fairgate.benchmarks.families.terms import contrast, gold
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Items, refuse
from fairgate.metrics.statistic import Statistic, Terms, mean

_CELLS = ("pro_male", "pro_female", "anti_male", "anti_female")


def _cells(items: Items) -> Terms:
    """Accuracy of answered items in each of the four cells: [n, 4]."""
    member = np.stack([items.subgroup == cell for cell in _CELLS], 1)
    refuse(~member.any(1), items.ids, items.benchmark, f"subgroup is none of {', '.join(_CELLS)}")
    member &= answered(items)[:, None]
    return (answers(items) == gold(items))[:, None] & member, member


# historical_bias = mean of the pro cells - mean of the anti cells;
# population_bias = mean of the male cells - mean of the female cells.
_STATISTICS = {
    "accuracy": share(_cells, "higher", combine=mean),
    "historical_bias": Statistic(_cells, "share", neutral=0.0, span=2.0, combine=contrast(0.5, 0.5, -0.5, -0.5)),
    "population_bias": Statistic(_cells, "share", neutral=0.0, span=2.0, combine=contrast(0.5, -0.5, 0.5, -0.5)),
}
# The accuracy of each cell is the value of its subgroup.
_LIKELIEST = Benchmark(2, None, _STATISTICS | {"cell_accuracy": share(right, "higher", "subgroups")})
BENCHMARKS = {
    "winobias": Benchmark(None, None, _STATISTICS | {"no_answer": share(unanswered, "lower", "subgroups")}, generated=True),
    "winobias_dev": _LIKELIEST,
    "winobias_ll": _LIKELIEST,
}
