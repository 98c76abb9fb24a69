"""Whether every weight is a number, and small enough for the scales of a packed checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from fairgate.model_folder.weights import Weights
from fairgate.support.errors import BadRecord, FairgateError

FLOAT16_MAX = 65504.0
_FLOAT16_ZERO = 2.0**-25  # rounds to zero
_FLOAT32_MAX = 3.4028234663852886e38  # float64 holds more, and no stage computes in it


def faults_of_values(weights: Weights, *, bits: int = 4) -> Iterator[FairgateError]:
    """Tensors with NaN or infinity in float32, and matrices whose scales float16 cannot hold.

    Every tensor is read once. The scale of a group is at least its largest magnitude divided by
    2**bits - 1.

    Args:
        weights: of the model.
        bits: the fewest bits that a weight is rounded to.
    """
    import torch

    largest_step = 2.0 / (2**bits - 1)  # of a weight of magnitude 1
    limit = FLOAT16_MAX * (2**bits - 1)
    with weights.opened() as opened:
        for name, stored in weights.tensors.items():
            tensor = opened.tensor(name)
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            low, high = (float(end) for end in torch.aminmax(tensor))
            where = f"{stored.file}, {name}"
            if not (abs(low) <= _FLOAT32_MAX and abs(high) <= _FLOAT32_MAX):
                count = int((~(tensor.abs() <= _FLOAT32_MAX)).sum())
                yield BadRecord(
                    f"{count} of {tensor.numel()} values are NaN or infinite in float32",
                    where=where,
                    remedy="take a sound copy of the model",
                )
            elif len(stored.shape) > 1 and 0 < max(-low, high) * largest_step < _FLOAT16_ZERO:
                what = f"no value is larger than {max(-low, high):.3g}: every scale in {bits} bits is zero in float16, and so every weight"
                yield BadRecord(what, where=where, remedy="a matrix of this size is a fault of the model; take a sound copy")
            elif len(stored.shape) > 1 and (largest := max(-low, high)) > limit:
                what = f"a value of magnitude {largest:.3g}: the scale of its group in {bits} bits is more than float16 holds"
                yield BadRecord(what, where=where, remedy="a weight of this size is a fault of the model; take a sound copy, or more bits")
