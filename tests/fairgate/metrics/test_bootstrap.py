"""The bootstrap against brute force, and its bounds against a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from fairgate.benchmarks import METRICS, items_of
from fairgate.metrics.bootstrap import bootstrap, error, level, lower, upper, weights
from tests.items import crows, flipped, stereoset, table


def test_weights_keep_every_stratum_at_its_size() -> None:
    strata = np.array([0, 0, 0, 1, 1])
    chunk = next(weights(strata, 500, seed=0))
    assert (chunk[:, :3].sum(1) == 3).all() and (chunk[:, 3:].sum(1) == 2).all()
    assert chunk.mean(0) == pytest.approx(np.ones(5), abs=0.15)


def test_a_lonely_cluster_joins_the_largest_stratum() -> None:
    chunk = next(weights(np.array([0, 0, 0, 1]), 200, seed=0))
    assert (chunk.sum(1) == 4).all()
    assert chunk[:, 3].std() > 0.5


def test_chunks_bound_memory_and_cover_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairgate.metrics.bootstrap._CHUNK", 70)
    chunks = list(weights(np.zeros(10, dtype=int), 25, seed=0))
    assert [len(chunk) for chunk in chunks] == [7, 7, 7, 4]


def test_bootstrap_equals_brute_force_and_is_paired() -> None:
    rng = np.random.default_rng(1)
    sides = rng.random(60) < 0.6
    tables = [table(*stereoset(s, per_term=3)) for s in (sides, flipped(sides, 0.2, rng))]
    q, b = (items_of(t, "stereoset") for t in tables)
    drawn = bootstrap(
        [METRICS["stereoset.icat"].components(q), METRICS["stereoset.ss"].components(b, group="race")], q.strata, draws=50, seed=7
    )
    (w,) = weights(q.strata, 50, seed=7)
    for i in range(50):
        # Clusters are repeated as often as drawn; the formulas apply to the resampled terms.
        terms = np.repeat(np.arange(q.clusters), w[i].astype(int))
        ss = 100 * np.mean([q.biased[q.cluster == term].mean() for term in terms])
        assert drawn[0][i] == pytest.approx(100 * min(ss, 100 - ss) / 50)
        race = [term for term in terms if b.group[b.cluster == term][0] == "race"]
        assert drawn[1][i] == pytest.approx(100 * np.mean([b.biased[b.cluster == term].mean() for term in race]))


def test_bootstrap_spread_agrees_with_linearization() -> None:
    items = items_of(table(*crows(np.random.default_rng(0).random(300) < 0.6)), "crows_pairs")
    part = METRICS["crows_pairs.pct_stereotype"].components(items)
    (drawn,) = bootstrap([part], items.strata, draws=10_000, seed=0)
    assert drawn.std() == pytest.approx(part.stderr, rel=0.05)


def test_same_seed_same_draws_and_another_seed_others() -> None:
    items = items_of(table(*crows(np.random.default_rng(0).random(30) < 0.6)), "crows_pairs")
    part = METRICS["crows_pairs.pct_stereotype"].components(items)
    first, again, other = (bootstrap([part], items.strata, draws=100, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_levels_widen_with_few_clusters_and_invert() -> None:
    assert level(0.05, 10) < level(0.05, 100) < level(0.05, 100_000) == pytest.approx(0.05, abs=1e-4)
    assert error(level(0.03, 12), 12) == pytest.approx(0.03)
    assert error(0.0, 12) == 0


@pytest.mark.parametrize("clusters", [8, 40])
def test_bounds_cover_the_truth_at_their_level(clusters: int) -> None:
    # 800 samples: the standard error of a coverage near 0.95 is 0.008.
    rng = np.random.default_rng(5)
    (w,) = weights(np.zeros(clusters, dtype=int), 2000, seed=0)
    missed = np.zeros(2)
    for _ in range(800):
        draws = w @ rng.normal(1.0, 2.0, clusters) / clusters
        missed += [lower(draws, 0.05, clusters) > 1.0, upper(draws, 0.05, clusters) < 1.0]
    assert missed / 800 == pytest.approx([0.05, 0.05], abs=0.025), missed / 800
