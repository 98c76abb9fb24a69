"""The GPTQ checkpoint layout of one linear layer: pack codes into int32 words, and read them back.

Codes form one little-endian bit stream down the input dimension: 32 codes of `bits` bits fill
`bits` words, so a 3-bit code may cross a word. Zero points lie the same way along the output
dimension, in v1 (`gptq`) each stored minus one, in v2 (`gptq_v2`) as they are.

    qweight [d * bits / 32, r] int32     scales [groups, r] float16
    qzeros  [groups, r * bits / 32] int32     g_idx [d] int32, the group of each input column
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fairgate.support.errors import FairgateError

BITS = (2, 3, 4, 8)
NAMES = ("qweight", "qzeros", "scales", "g_idx")
LOWEST_ZERO = {"gptq": 1, "gptq_v2": 0}  # by format: the zero point that is stored as 0
# Types whose packed checkpoints transformers 5.23 with optimum 2.3 cannot load (docs/footguns.md);
# gptqmodel's own loader can.
GPTQMODEL_ONLY = ("falcon", "gpt2", "gpt_bigcode")
_WORD = 32


def bits_of(module: str, bits: int, dynamic: Mapping[str, Mapping[str, Any]] | None) -> int:
    """Bits of a module by its full name: `bits`, or what the first pattern of `dynamic` that
    matches from the name's start says.

    `dynamic` is that of gptqmodel's quantization_config: `+:regex` or `regex` -> settings that
    differ there; `-:regex` is not quantized.

    Raises:
        FairgateError: the module is packed although `dynamic` excludes it.
    """
    for pattern, settings in (dynamic or {}).items():
        sign, regex = (pattern[0], pattern[2:]) if pattern.startswith(("+:", "-:")) else ("+", pattern)
        if not re.match(regex, module):
            continue
        if sign == "-":
            remedy = "the checkpoint contradicts itself: quantize the model again"
            raise FairgateError(f"packed, but excluded by {pattern!r}", where=f"{module}: quantization_config.dynamic", remedy=remedy)
        return int(settings.get("bits", bits))
    return bits


def pack(codes: Tensor, scale: Tensor, zero: Tensor, bits: int, group_size: int, form: str = "gptq") -> dict[str, Tensor]:
    """Pack one layer.

    Args:
        codes: [r, d] uint8, each below 2**bits.
        scale: [r, groups] float; stored as float16, so quantize against the rounded values.
        zero: [r, groups] int, 1 .. 2**bits - 1 (v2: from 0); W = scale * (codes - zero).
        group_size: input columns that share a scale; -1 means all.
        form: `gptq` (v1) or `gptq_v2`.
    Raises:
        FairgateError: a width that the format lacks, shapes that disagree, codes out of range, or a
            zero point outside its range (in v1 a stored 0 - 1 wraps, and readers disagree on what
            it means).
    """
    _check(bits, form)
    r, d = codes.shape
    size = d if group_size == -1 else group_size
    groups = d // size
    if d % size or scale.shape != (r, groups) or zero.shape != (r, groups):
        raise FairgateError(
            f"codes {tuple(codes.shape)}, scale {tuple(scale.shape)}, zero {tuple(zero.shape)} do not fit groups of {size}",
            where="gptq_format.pack",
            remedy="choose a group size that divides the layer's inputs",
        )
    top, lowest = 2**bits - 1, LOWEST_ZERO[form]
    most, low, high = torch.stack([codes.max().int(), zero.min().int(), zero.max().int()]).tolist()  # a GPU is waited for once
    if most > top or low < lowest or high > top:
        raise FairgateError(
            f"codes up to {most}, zero points {low} .. {high} at {bits} bits",
            where="gptq_format.pack",
            remedy=f"keep codes in 0 .. {top} and zero points in {lowest} .. {top} (the format {form!r} stores them minus {lowest})",
        )
    return {
        "qweight": _to_words(codes.T, bits),
        "qzeros": _to_words(zero - lowest, bits).T.contiguous(),
        "scales": scale.T.to(torch.float16).contiguous(),
        "g_idx": torch.arange(d, dtype=torch.int32, device=codes.device) // size,
    }


def unpack(tensors: dict[str, Tensor], bits: int, form: str = "gptq") -> Tensor:
    """The dequantized weight W [r, d] float32 of one packed layer (the four tensors of NAMES).

    Raises:
        FairgateError: bits or a format that are not read, or shapes that are not those of `bits`.
    """
    _check(bits, form)
    scales = tensors["scales"].float()
    g_idx = tensors["g_idx"].long()
    d, (groups, r) = len(g_idx), scales.shape
    words = (tensors["qweight"].shape, tensors["qzeros"].shape)
    expected = ((_words(d, bits), r), (groups, _words(r, bits)))
    if words != expected:
        raise FairgateError(
            f"qweight {tuple(words[0])} and qzeros {tuple(words[1])} instead of {expected[0]} and {expected[1]} at {bits} bits",
            where="gptq_format.unpack",
            remedy="the checkpoint is damaged or its config.json names other bits; run `dvc repro quantize`",
        )
    if not 0 <= int(g_idx.min()) <= int(g_idx.max()) < groups:
        raise FairgateError(
            f"g_idx names groups {int(g_idx.min())} .. {int(g_idx.max())}, there are {groups}",
            where="gptq_format.unpack",
            remedy="the checkpoint is damaged; run `dvc repro quantize`",
        )
    codes = _from_words(tensors["qweight"], bits, d)
    zero = (_from_words(tensors["qzeros"].T, bits, r).T + LOWEST_ZERO[form]) & (2**bits - 1)
    return (scales[g_idx] * (codes - zero[g_idx])).T.contiguous()


def _check(bits: int, form: str) -> None:
    if bits not in BITS:
        raise FairgateError(f"{bits} bits", where="gptq_format", remedy=f"the format knows {', '.join(map(str, BITS))} bits")
    if form not in LOWEST_ZERO:
        raise FairgateError(f"checkpoint format {form!r}", where="gptq_format", remedy=f"read are {', '.join(LOWEST_ZERO)}")


def _words(count: int, bits: int) -> int:
    return -(-count * bits // _WORD)


def _places(bits: int) -> list[tuple[int, int]]:
    """(word, shift) of each of the 32 codes that share `bits` words."""
    return [divmod(j * bits, _WORD) for j in range(_WORD)]


def _to_words(values: Tensor, bits: int) -> Tensor:
    """[n, m] integers -> [ceil(n * bits / 32), m] int32 words, stream along dimension 0."""
    n, m = values.shape
    if n % _WORD == 0 and _WORD % bits == 0:  # no code crosses a word: three kernels instead of a hundred
        shifts = torch.arange(0, _WORD, bits, dtype=torch.int32, device=values.device)[:, None]
        return (values.to(torch.int32).view(-1, len(shifts), m) << shifts).sum(1, dtype=torch.int32)
    padded = torch.zeros(-(-n // _WORD), _WORD, m, dtype=torch.int64, device=values.device)
    padded.view(-1, m)[:n] = values.to(torch.int64)
    words = torch.zeros(len(padded), bits, m, dtype=torch.int64, device=values.device)
    for j, (word, shift) in enumerate(_places(bits)):
        words[:, word] |= (padded[:, j] << shift) & 0xFFFFFFFF
        if shift + bits > _WORD:
            words[:, word + 1] |= padded[:, j] >> (_WORD - shift)
    signed = torch.where(words >= 2**31, words - 2**32, words)
    return signed.reshape(-1, m)[: _words(n, bits)].to(torch.int32)


def _from_words(words: Tensor, bits: int, n: int) -> Tensor:
    """[ceil(n * bits / 32), m] int32 words -> [n, m] int32 values; the inverse of _to_words."""
    blocks, m = -(-n // _WORD), words.shape[1]
    padded = torch.zeros(blocks * bits, m, dtype=torch.int64, device=words.device)
    padded[: len(words)] = words.to(torch.int64) & 0xFFFFFFFF
    padded = padded.view(blocks, bits, m)
    values = torch.empty(blocks, _WORD, m, dtype=torch.int32, device=words.device)
    for j, (word, shift) in enumerate(_places(bits)):
        value = padded[:, word] >> shift
        if shift + bits > _WORD:
            value = value | (padded[:, word + 1] << (_WORD - shift))
        values[:, j] = (value & (2**bits - 1)).to(torch.int32)
    return values.view(-1, m)[:n]
