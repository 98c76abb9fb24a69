from __future__ import annotations

import math

import torch

from stages.quantize.methods.learned.losses import Sides, anchor, distance, divergence, log_likelihood, parity, remembered, shares


def test_divergence_by_hand_and_without_what_comes_after_the_end() -> None:
    teacher, student = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    student[0, 0, 0] = math.log(3)  # 3/4 and 1/4 instead of 1/2 and 1/2
    student[1, 1:, 0] = 50.0  # behind the end of the second row, and at the last place, which predicts nothing
    expected = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 3  # three predicted tokens: 2 + 1
    assert math.isclose(float(divergence(teacher, student, torch.tensor([3, 2]))), expected, rel_tol=1e-5)


def test_log_likelihood_is_a_mean_over_the_sentence_alone() -> None:
    logits = torch.zeros(2, 4, 4)
    logits[0, 0, 1] = math.log(5)  # the first prediction: 5/8
    ids = torch.tensor([[0, 1, 2, 3], [0, 2, 0, 0]])
    logits[1, 1:, 3] = 99.0
    found = log_likelihood(logits, ids, torch.tensor([4, 2]))
    assert torch.allclose(found, torch.tensor([(math.log(5 / 8) + 2 * math.log(1 / 4)) / 3, math.log(1 / 4)]))


def test_shares_by_hand() -> None:
    preference = torch.tensor([0.1, -0.1, 100.0, 0.2])
    found = shares(preference, torch.tensor([0, 0, 1, 1]), 2, tau=0.1)
    assert torch.allclose(found, torch.tensor([0.5, (1 + 1 / (1 + math.exp(-2))) / 2]))


def test_parity_is_least_at_one_half_and_points_there() -> None:
    now = torch.tensor([0.5, 0.5], requires_grad=True)
    assert float(parity(now, now.detach(), worst=4.0)) == 0
    now = torch.tensor([0.8, 0.3], requires_grad=True)
    value = parity(now, now.detach(), worst=0.0)
    assert math.isclose(float(value), 4 * (0.09 + 0.04) / 2, rel_tol=1e-6)
    value.backward()
    assert now.grad[0] > 0 > now.grad[1]


def test_the_worst_group_weighs_more() -> None:
    mean = torch.tensor([0.8, 0.55])
    now = mean.clone().requires_grad_()
    parity(now, mean, worst=4.0).backward()
    even = mean.clone().requires_grad_()
    parity(even, mean, worst=0.0).backward()
    assert now.grad[0] / now.grad[1] > even.grad[0] / even.grad[1]


def test_the_running_mean_has_the_value_and_this_step_the_gradient() -> None:
    now = torch.tensor([0.7], requires_grad=True)
    assert torch.equal(remembered(now, torch.tensor([torch.nan])), now)
    mean = remembered(now, torch.tensor([0.3]))
    assert torch.allclose(mean, torch.tensor([0.34]))
    parity(now, mean, worst=0.0).backward()
    assert now.grad[0] < 0  # this step is above one half, what is remembered is below


def test_anchor_counts_the_middle_of_a_pair_and_the_unrelated_sentence() -> None:
    teacher = Sides(torch.tensor([-2.0]), torch.tensor([-4.0]), torch.tensor([-6.0]))
    assert float(anchor(Sides(torch.tensor([-3.0]), torch.tensor([-3.0]), torch.tensor([-6.0])), teacher)) == 0
    assert float(anchor(Sides(torch.tensor([-3.0]), torch.tensor([-5.0]), torch.tensor([-4.0])), teacher)) == 1 + 4


def test_distance_of_hidden_states_by_hand_and_without_what_comes_after_the_end() -> None:
    teacher = [torch.ones(1, 3, 4) * factor for factor in (1.0, 2.0, 1.0)]
    student = [states.clone() for states in teacher]
    student[0] += 9.0  # the embedding is shared
    student[1][0, 0] += 1.0  # (1 / 2)^2 at one token of two
    student[2][0, 1] -= 1.0  # all of it at the other
    student[2][0, 2] += 9.0  # behind the end
    assert math.isclose(float(distance(teacher, student, torch.tensor([2]))), (0.25 / 2 + 1.0 / 2) / 2, rel_tol=1e-6)
