"""The GPTQ v1 checkpoint layout of one linear layer: pack codes into int32 words, and read them back.

Codes form one little-endian bit stream down the input dimension: 32 codes of `bits` bits fill `bits` words, so a 3-bit
code may cross a word. Zero points lie the same way along the output dimension, each stored minus one (that is what makes it v1).

    qweight [d * bits / 32, r] int32     scales [groups, r] float16
    qzeros  [groups, r * bits / 32] int32     g_idx [d] int32, the group of each input column
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.common.errors import FairgateError

BITS = (2, 3, 4, 8)
NAMES = ("qweight", "qzeros", "scales", "g_idx")
_WORD = 32


def pack(codes: Tensor, scale: Tensor, zero: Tensor, bits: int, group_size: int) -> dict[str, Tensor]:
    """Pack one layer.

    Args:
        codes: [r, d] uint8, each below 2**bits.
        scale: [r, groups] float; stored as float16, so quantize against the rounded values.
        zero: [r, groups] int, 1 .. 2**bits - 1; W = scale * (codes - zero).
        group_size: input columns that share a scale; -1: all.
    Raises:
        FairgateError: a width that the format lacks, shapes that disagree, codes out of range, or a zero point outside its range
            (a stored 0 - 1 wraps, and readers disagree on what it means).
    """
    _check_bits(bits)
    r, d = codes.shape
    size = d if group_size == -1 else group_size
    groups = d // size
    if d % size or scale.shape != (r, groups) or zero.shape != (r, groups):
        raise FairgateError(
            f"codes {tuple(codes.shape)}, scale {tuple(scale.shape)}, zero {tuple(zero.shape)} do not fit groups of {size}",
            where="gptq_format.pack",
            remedy="choose a group size that divides the layer's inputs",
        )
    top = 2**bits - 1
    if int(codes.max()) > top or int(zero.min()) < 1 or int(zero.max()) > top:
        raise FairgateError(
            f"codes up to {int(codes.max())}, zero points {int(zero.min())} .. {int(zero.max())} at {bits} bits",
            where="gptq_format.pack",
            remedy=f"keep codes in 0 .. {top} and zero points in 1 .. {top}: the format stores a zero point minus one",
        )
    return {
        "qweight": _to_words(codes.T, bits),
        "qzeros": _to_words(zero - 1, bits).T.contiguous(),
        "scales": scale.T.to(torch.float16).contiguous(),
        "g_idx": torch.arange(d, dtype=torch.int32, device=codes.device) // size,
    }


def unpack(tensors: dict[str, Tensor], bits: int) -> Tensor:
    """The dequantized weight W [r, d] float32 of one packed layer (the four tensors of NAMES)."""
    _check_bits(bits)
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
    codes = _from_words(tensors["qweight"], bits, d)
    zero = (_from_words(tensors["qzeros"].T, bits, r).T + 1) & (2**bits - 1)
    return (scales[g_idx] * (codes - zero[g_idx])).T.contiguous()


def _check_bits(bits: int) -> None:
    if bits not in BITS:
        raise FairgateError(f"{bits} bits", where="gptq_format", remedy=f"the format knows {', '.join(map(str, BITS))} bits")


def _words(count: int, bits: int) -> int:
    return -(-count * bits // _WORD)


def _places(bits: int) -> list[tuple[int, int]]:
    """(word, shift) of each of the 32 codes that share `bits` words."""
    return [divmod(j * bits, _WORD) for j in range(_WORD)]


def _to_words(values: Tensor, bits: int) -> Tensor:
    """[n, m] integers -> [ceil(n * bits / 32), m] int32 words, stream along dimension 0."""
    n, m = values.shape
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
