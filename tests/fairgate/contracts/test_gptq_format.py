from __future__ import annotations

import pytest
import torch

from fairgate.contracts.gptq_format import BITS, bits_of, pack, unpack
from fairgate.support.errors import FairgateError


def layer(bits: int, group: int, r: int = 96, d: int = 128, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    groups = 1 if group == -1 else d // group
    codes = torch.randint(0, 2**bits, (r, d), dtype=torch.uint8, generator=generator)
    scale = (torch.rand(r, groups, generator=generator) + 0.1).half()
    zero = torch.randint(1, 2**bits, (r, groups), generator=generator)
    return codes, scale, zero


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("group", [16, 32, 64, 128, 256, -1])
def test_unpack_gives_scale_times_code_minus_zero(bits: int, group: int, form: str) -> None:
    codes, scale, zero = layer(bits, group, d=256)
    width = 256 if group == -1 else group
    expected = scale.float().repeat_interleave(width, 1) * (codes.int() - zero.repeat_interleave(width, 1))
    assert torch.equal(unpack(pack(codes, scale, zero, bits, group, form), bits, form), expected)


def test_words_by_hand() -> None:
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    codes[0, :12] = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 5, 1], dtype=torch.uint8)
    packed = pack(codes, torch.ones(1, 1), torch.full((1, 1), 4), 3, -1)
    stream = sum(int(code) << (3 * i) for i, code in enumerate(codes[0]))
    words = [(stream >> (32 * i)) & 0xFFFFFFFF for i in range(3)]
    assert [int(w) & 0xFFFFFFFF for w in packed["qweight"][:, 0]] == words
    assert int(packed["qzeros"][0, 0]) == 3


@pytest.mark.parametrize("bits", BITS)
def test_gptqmodel_reads_the_same_weight_and_packs_the_same_words(bits: int) -> None:
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module, convert_gptq_v2_to_v1_format_module

    codes, scale, zero = layer(bits, 32)
    ours = pack(codes, scale, zero, bits, 32)
    weight = unpack(ours, bits)
    module = TorchLinear(
        bits=bits, group_size=32, sym=False, desc_act=False, in_features=128, out_features=96, bias=False, pack_dtype=torch.int32
    )
    for name, tensor in ours.items():
        getattr(module, name).copy_(tensor)
    convert_gptq_v1_to_v2_format_module(module, bits, torch.int32)
    module.post_init()
    theirs = module.dequantize_weight().T.float()
    assert torch.allclose(theirs, weight, atol=2e-3, rtol=1e-3)

    linear = torch.nn.Linear(128, 96, bias=False)
    linear.weight.data = weight
    module.pack_original(linear, scale.float(), zero.int(), ours["g_idx"])
    convert_gptq_v2_to_v1_format_module(module, QuantizeConfig(bits=bits, group_size=32))
    for name in ("qweight", "qzeros", "scales", "g_idx"):
        assert torch.equal(getattr(module, name).cpu(), ours[name]), name


def test_a_zero_point_of_zero_needs_the_second_format() -> None:
    codes, scale, zero = layer(4, 32)
    zero[3, 1] = 0
    with pytest.raises(FairgateError, match="zero points 0"):
        pack(codes, scale, zero, 4, 32)
    packed = pack(codes, scale, zero, 4, 32, "gptq_v2")
    assert torch.equal(unpack(packed, 4, "gptq_v2")[3, 32:64], scale[3, 1].float() * codes[3, 32:64])


def test_second_format_is_the_first_with_zero_points_one_higher() -> None:
    codes, scale, zero = layer(4, 32)
    first, second = (pack(codes, scale, zero, 4, 32, form) for form in ("gptq", "gptq_v2"))
    assert [name for name in first if not torch.equal(first[name], second[name])] == ["qzeros"]
    assert torch.equal((second["qzeros"] - first["qzeros"]), torch.full_like(first["qzeros"], 0x11111111))


def test_bits_of_a_module_are_those_of_the_first_pattern_that_matches_as_in_gptqmodel() -> None:
    from gptqmodel.quantization.config import dynamic_get

    dynamic = {r"+:.*\.0\.mlp": {"bits": 2}, r".*down_proj$": {"bits": 8}, r"+:mlp": {"bits": 3}, r".*up": {"group_size": 32}}
    names = ["layers.0.mlp.down_proj", "layers.1.mlp.down_proj", "layers.1.mlp.up_proj", "mlp.up", "a.down_proj_lora"]
    assert [bits_of(name, 4, dynamic) for name in names] == [2, 8, 4, 3, 4]
    assert [dynamic_get(dynamic, name, "bits", 4) for name in names] == [2, 8, 4, 3, 4]
    with pytest.raises(FairgateError, match=r"layers.1.up: .*packed, but excluded by '-:.*up'"):
        bits_of("layers.1.up", 4, {"-:.*up": {}})


def test_a_format_and_groups_that_are_not_there_are_refused() -> None:
    packed = pack(*layer(4, 32), 4, 32)
    with pytest.raises(FairgateError, match="format 'marlin'"):
        unpack(packed, 4, "marlin")
    packed["g_idx"][5] = 9
    with pytest.raises(FairgateError, match=r"g_idx names groups 0 \.\. 9, there are 4"):
        unpack(packed, 4)


def test_wrong_bits_and_wrong_groups_are_refused() -> None:
    codes, scale, zero = layer(4, 32)
    with pytest.raises(FairgateError, match="5 bits"):
        pack(codes, scale, zero, 5, 32)
    with pytest.raises(FairgateError, match="groups of 48"):
        pack(codes, scale, zero, 4, 48)
    with pytest.raises(FairgateError, match="at 8 bits"):
        unpack(pack(codes, scale, zero, 4, 32), 8)


@pytest.mark.parametrize("bits", BITS)
def test_sizes_that_do_not_fill_the_last_word(bits: int) -> None:
    codes, scale, zero = layer(bits, 20, r=7, d=40)
    width = scale.float().repeat_interleave(20, 1) * (codes.int() - zero.repeat_interleave(20, 1))
    assert torch.equal(unpack(pack(codes, scale, zero, bits, 20), bits), width)
