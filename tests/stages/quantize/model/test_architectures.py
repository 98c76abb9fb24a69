from __future__ import annotations

import pytest

from fairgate.support.errors import UnknownName
from stages.quantize.model.architectures import architecture_of, debiased_blocks, debiased_modules


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


def test_modules_that_share_a_leaf_name_are_debiased_together_and_told_apart() -> None:
    gpt2 = architecture_of("gpt2")
    assert debiased_modules(gpt2, ["c_proj"]) == {"attn.c_proj", "mlp.c_proj"}
    assert [gpt2.kind(module) for module in gpt2.modules] == ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]


def test_the_first_entry_whose_blocks_lack_what_it_excludes_is_taken() -> None:
    assert architecture_of("falcon", {"mlp", "input_layernorm"}).name == "falcon"
    assert architecture_of("falcon", {"mlp", "ln_mlp", "ln_attn"}).name == "falcon_two_norms"
