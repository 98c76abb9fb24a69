"""Benchmarks of what a model can do: accuracy of choices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fairgate.benchmarks.families.terms import accuracy, accuracy_per_character, ones
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Items
from fairgate.metrics.statistic import Statistic, Terms


def _surprise_of_word(items: Items) -> Terms:
    return -items.loglik[:, 0], ones(items)


_ACC = Statistic(accuracy, "share", better="higher", span=1.0)
_ACC_NORM = Statistic(accuracy_per_character, "share", better="higher", span=1.0)

_CHOICE = Benchmark(None, None, {"acc": _ACC, "acc_norm": _ACC_NORM})
_SUBJECTS = Benchmark(4, None, {"acc": replace(_ACC, mean_over="groups")})

CAPABILITY: dict[str, Benchmark] = {
    **dict.fromkeys(("piqa", "piqa_full", "openbookqa", "arc_easy", "arc_challenge", "hellaswag"), _CHOICE),
    "boolq": Benchmark(None, None, {"acc": _ACC}),
    "winogrande": Benchmark(2, None, {"acc": _ACC}),
    "mmlu_ll": _SUBJECTS,
    "mmlu_ll_5shot": _SUBJECTS,
    # Options: the word, and the likeliest token at each of its places: as likely as those, it is what greedy decoding gives.
    "lambada": Benchmark(
        2,
        None,
        {"acc": _ACC, "ppl": Statistic(_surprise_of_word, "perplexity", better="lower", combine=lambda r: np.exp(r[..., 0]))},
        chooses=lambda items: items.loglik.argmax(1).astype(np.int64),
        alternatives=False,
    ),
}
