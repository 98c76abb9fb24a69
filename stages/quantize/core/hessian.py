"""Sums over calibration batches, and the matrices H, C and B that are made from them.

All sums stay unscaled until the end. Batch size, padding and the order of pairs therefore change
rounding errors alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fairgate.support.errors import FairgateError
from stages.quantize.core.differences import differences
from stages.quantize.core.pairs import Batch
from stages.quantize.core.products import add_difference_gram, add_gram, fill_lower


@dataclass(frozen=True)
class Hessians:
    """The matrices that one shared input of d channels contributes to the objective.

    H: [d, d] float32, a mean over sentences with general text mixed in.
    C: [d, d] float32, a sum over pairs without alpha. None means that no module needs it.
    pairs: their number P.
    mix: the share w of general text in H.
    """

    H: Tensor
    C: Tensor | None
    pairs: int
    mix: float


@dataclass
class HessianAccumulator:
    """Unscaled sums over the calibration batches for one shared input of d channels.

    G_pair: [d, d], the sum of x x^T over the valid tokens of pair sentences.
    G_text: [d, d], the sum of x x^T over the valid tokens of general text.
    C: [d, d], the sum of D^T D. None means no pairs, no fairness term or the group-mean constraint.
    S: [groups, d], the sum of the differences of each group. Group-mean constraint only.
    n_group: [groups], the number of pairs in each group. Group-mean constraint only.
    """

    d: int
    device: torch.device
    with_C: bool
    n_groups: int = 0  # more than 0 means the group-mean constraint
    G_pair: Tensor | None = None
    G_text: Tensor | None = None
    C: Tensor | None = None
    S: Tensor | None = None
    n_group: Tensor | None = None
    sentences: int = 0
    pair_tokens: int = 0
    text_tokens: int = 0
    pairs: int = 0

    def add(self, X: Tensor, batch: Batch) -> None:
        """Add one batch. X is the input of every token slot: [rows, L, d] or [rows * L, d]."""
        X = X.reshape(-1, self.d)
        valid = X if batch.all_counted else X[batch.counted]
        if batch.M is None:
            self.G_text = add_gram(self.G_text, valid)
            self.text_tokens += len(valid)
            return
        self.G_pair = add_gram(self.G_pair, valid)
        self.pair_tokens += len(valid)
        self.sentences += batch.sentences
        self.pairs += batch.pairs
        if not self.with_C:
            return
        D = differences(batch, X)
        if self.n_groups == 0:
            self.C = add_gram(self.C, D) if X.dtype is torch.float32 else add_difference_gram(self.C, D)
            return
        assert batch.groups is not None
        if self.S is None or self.n_group is None:
            self.S, self.n_group = D.new_zeros(self.n_groups, self.d), D.new_zeros(self.n_groups)
        members = (batch.groups == torch.arange(self.n_groups, device=D.device)[:, None]).to(D.dtype)
        self.S += members @ D  # a scattered sum would run in another order every time
        self.n_group += members.sum(1)

    def join(self, other: HessianAccumulator) -> None:
        """Add the sums over other batches. They may lie on another GPU."""
        for name in ("G_pair", "G_text", "C", "S", "n_group"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None:
                theirs = theirs.to(self.device)
                setattr(self, name, theirs if mine is None else mine.add_(theirs))
        for name in ("sentences", "pair_tokens", "text_tokens", "pairs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def finish(self, text_share: float | None) -> Hessians:
        """H and C of everything that was added.

        H = 2 t [(1 - w) G_pair/n_pair + w G_text/n_text], where t is the mean number of tokens of a
        pair sentence. With this t, alpha means the same for any share of text.

        Args:
            text_share: the weight w of general text. None means the text's share of the tokens.
        Raises:
            FairgateError: no token was added, or w asks for pairs or text where there are none.
        """
        n_pair, n_text = self.pair_tokens, self.text_tokens
        if n_pair + n_text == 0:
            raise FairgateError("no calibration token reached this module", remedy="give pairs or text in the section `calibrate`")
        w = n_text / (n_pair + n_text) if text_share is None else text_share
        if (w > 0 and n_text == 0) or (w < 1 and n_pair == 0):
            raise FairgateError(
                f"text_share {w} needs both pairs and text, got {n_pair} and {n_text} tokens",
                remedy="set `calibration` of the recipe to match, or leave text_share empty",
            )
        t = n_pair / self.sentences if self.sentences else 1.0
        H = torch.zeros(self.d, self.d, device=self.device)
        if self.G_pair is not None and w < 1:
            H += self.G_pair * (2 * t * (1 - w) / n_pair)
        if self.G_text is not None and w > 0:
            H += self.G_text * (2 * t * w / n_text)
        fill_lower(H)
        C = None if self.C is None else fill_lower(self.C)
        if self.S is not None and self.n_group is not None:
            # sum_g (n_g / P) dbar_g dbar_g^T, times P because C is a sum. B = 2 alpha/P C then has
            # the documented scale.
            weighted = self.S / self.n_group.clamp(min=1).sqrt()[:, None]
            C = weighted.T @ weighted
        return Hessians(H, C, self.pairs, w)


@dataclass(frozen=True)
class FairnessWeight:
    """The weight of the fairness term; one of the three is given.

    alpha: B = (2 alpha / P) C.
    rho: dimensionless and per module, tr B = rho tr H.
    factor: B = factor C, one factor for all modules.
    """

    alpha: float | None = None
    rho: float | None = None
    factor: float | None = None

    def matrix(self, hessians: Hessians) -> Tensor | None:
        """B [d, d]. None means that it would be zero."""
        C, H = hessians.C, hessians.H
        if C is None:
            return None
        if self.factor is not None:
            scale = self.factor
        elif self.rho is not None:
            trace = float(C.trace())
            scale = self.rho * float(H.trace()) / trace if trace > 0 else 0.0
        else:
            scale = 2 * (self.alpha or 0.0) / max(hessians.pairs, 1)
        return C * scale if scale > 0 else None
