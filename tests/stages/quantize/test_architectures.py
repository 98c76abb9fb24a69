from __future__ import annotations

import pytest

from stages.common.errors import UnknownName
from stages.quantize.architectures import architecture_of, debiased_blocks, debiased_modules


@pytest.mark.parametrize(
    ("n", "subset", "blocks"),
    [
        (32, "lower", {0, 1, 2, 3}),
        (32, "upper", {28, 29, 30, 31}),
        (32, "lower+upper", {0, 1, 30, 31}),
        (40, "lower+upper", {0, 1, 38, 39}),
        (30, "lower", {0, 1, 2, 3}),
        (3, "all", {0, 1, 2}),
    ],
)
def test_block_subsets_are_the_documented_ones(n: int, subset: str, blocks: set[int]) -> None:
    assert debiased_blocks(n, subset) == blocks


def test_unknown_subset_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'lower'"):
        debiased_blocks(32, "lowr")


def test_module_sets_match_exact_leaf_names() -> None:
    opt = architecture_of("opt")
    assert debiased_modules(opt, "out") == {"self_attn.out_proj", "fc2"}
    assert debiased_modules(opt, ["fc1"]) == {"fc1"}
    assert debiased_modules(opt, "all") == set(opt.modules)
    with pytest.raises(UnknownName):
        debiased_modules(opt, ["fc"])
    with pytest.raises(UnknownName, match="'out'"):
        debiased_modules(opt, "outs")
