"""What learned rounding minimises, from logits; ids and lengths are right-padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

MEMORY = 0.9  # share of earlier steps in a group's running mean; one step's pairs alone would charge their own scatter as bias


@dataclass(frozen=True)
class Sides:
    """Mean log-likelihood per token of the sentences of P triples: each [P]."""

    stereotype: Tensor
    anti_stereotype: Tensor
    unrelated: Tensor

    @property
    def preference(self) -> Tensor:
        """Delta [P]: by how much the stereotype is likelier, in nats a token."""
        return self.stereotype - self.anti_stereotype


def predicted(lengths: Tensor, width: int) -> Tensor:
    """[B, width - 1] bool: the places whose next token is one of the sentence."""
    return torch.arange(width - 1, device=lengths.device) < lengths[:, None] - 1


def divergence(teacher: Tensor, student: Tensor, lengths: Tensor) -> Tensor:
    """KL(teacher || student), mean per predicted token.

    Args:
        teacher: logits [B, L, vocabulary].
        student: logits [B, L, vocabulary].
        lengths: [B].
    """
    there = predicted(lengths, student.shape[1])
    p, q = (log_softmax(logits[:, :-1].float(), -1) for logits in (teacher, student))
    return ((p.exp() * (p - q)).sum(-1) * there).sum() / there.sum()


def distance(teacher: Sequence[Tensor], student: Sequence[Tensor], lengths: Tensor) -> Tensor:
    """Mean over tokens and blocks of ||h_s - h_t||^2 / ||h_t||^2; the embedding, which both share,
    is left out.

    Args:
        teacher: hidden states after the embedding and after every block (the last normed),
            [B, L, d] each.
        student: the same of the student.
        lengths: [B].
    """
    there = torch.arange(student[0].shape[1], device=lengths.device) < lengths[:, None]
    sums = []
    for h_t, h_s in zip(teacher[1:], student[1:], strict=True):
        squares = (h_s.float() - h_t.float()).square().sum(-1) / h_t.float().square().sum(-1)
        sums.append((squares * there).sum() / there.sum())
    return torch.stack(sums).mean()


def log_likelihood(logits: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Mean log-likelihood of each sentence's tokens after its first, [B].

    Args:
        logits: [B, L, vocabulary].
        ids: [B, L].
        lengths: [B].
    """
    there = predicted(lengths, ids.shape[1])
    nll = cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(there.shape)
    return -(nll * there).sum(-1) / there.sum(-1)


def shares(preference: Tensor, groups: Tensor, count: int, tau: float) -> Tensor:
    """A smooth share of stereotypes among the preferred sentences of each group: mean of
    sigma(Delta / tau), [count].

    Args:
        preference: [P].
        groups: [P], numbers below `count`; every group occurs.
    """
    belongs = (groups == torch.arange(count, device=groups.device)[:, None]).to(preference.dtype)  # [count, P]
    return (belongs @ torch.sigmoid(preference / tau)) / belongs.sum(-1)


def remembered(now: Tensor, before: Tensor) -> Tensor:
    """The running mean of each group's share, with this step's in it; no gradient.

    Args:
        now: this step's shares, [groups].
        before: the running means so far, [groups]; NaN where there is none yet.
    """
    return torch.where(before.isnan(), now.detach(), MEMORY * before + (1 - MEMORY) * now.detach())


def parity(now: Tensor, mean: Tensor, worst: float) -> Tensor:
    """4 (share - 1/2)^2, averaged over the groups with weights that grow with their distance from
    1/2.

    Args:
        now: this step's shares [groups], which carry the gradient.
        mean: the running shares [groups], which carry the value.
        worst: weights are softmax(2 worst |mean - 1/2|); 0 means all alike.
    """
    distance = 2 * (mean - 0.5).abs()
    value = 2 * (mean + now - now.detach() - 0.5)
    return (torch.softmax(worst * distance, 0) * value.square()).sum()


def anchor(student: Sides, teacher: Sides) -> Tensor:
    """Squared change of a pair's mean log-likelihood, and of the unrelated sentence's.

    Without it the likelihood of both sides sinks, which closes any gap.
    """
    middles = [(sides.stereotype + sides.anti_stereotype) / 2 for sides in (student, teacher)]
    return (middles[0] - middles[1]).square().mean() + (student.unrelated - teacher.unrelated).square().mean()
