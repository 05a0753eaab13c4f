"""NT-Xent and sampled negatives, against sums that are written out."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from vclr_lightning.functional import nt_xent as tested
from vclr_lightning.functional.contrastive import info_nce, unit
from vclr_lightning.functional.nt_xent import nt_xent, sampled_nce


def _units(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randn(shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_leaves_out_the_row_itself_alone(temperature: float) -> None:
    videos = 5
    first, second = _units(videos, 6), _units(videos, 6, seed=1)
    every = torch.cat([first, second])
    own = torch.arange(videos)
    out = nt_xent(second, every, positive=own, itself=own + videos, temperature=temperature)
    losses, hardest, means = [], [], []
    rows = [row.tolist() for row in every]
    for i in range(videos):
        dots = {j: float(np.dot(rows[videos + i], rows[j])) for j in range(2 * videos)}
        del dots[videos + i]
        total = sum(exp(dot / temperature) for dot in dots.values())
        losses.append(-log(exp(dots[i] / temperature) / total))
        others = [dot / temperature for j, dot in dots.items() if j != i]
        hardest.append(max(others))
        means.append(np.mean(others))
    assert out.loss.item() == pytest.approx(np.mean(losses), abs=1e-12)
    assert out.hardest.tolist() == pytest.approx(hardest)
    assert out.negative.tolist() == pytest.approx(means)
    positive = (second * first).sum(1) / temperature
    assert out.positive[:, 0].tolist() == pytest.approx(positive.tolist())


def test_nt_xent_has_the_gradient_of_its_definition_on_both_sides() -> None:
    every = _units(8, 3).requires_grad_()
    own = torch.arange(4)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return nt_xent(x[:4], x, positive=own + 4, itself=own, temperature=0.3).loss

    assert torch.autograd.gradcheck(loss, (every,))


@pytest.mark.parametrize("at_once", [1, 40, 2**24])
def test_sampled_negatives(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each query has rows of its own, as often as they are drawn; some queries at a time."""
    monkeypatch.setattr(tested, "_VALUES_AT_ONCE", at_once)
    bank = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    query = _units(3, 4).requires_grad_()
    drawn = torch.tensor([[0, 0, 5, 1, 2], [6, 1, 1, 1, 3], [2, 2, 2, 2, 2]])
    own = torch.tensor([5, 1, 2])  # of which each is drawn, too
    out = sampled_nce(query, bank[own], bank, drawn, temperature=0.2)
    alone = [
        info_nce(q[None], bank[i][None], bank[rows], temperature=0.2)
        for q, i, rows in zip(query, own, drawn, strict=True)
    ]
    expected = torch.stack(alone).mean()
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-12)
    (theirs,) = torch.autograd.grad(expected, query)
    out.loss.backward()
    assert query.grad is not None
    torch.testing.assert_close(query.grad, theirs, atol=1e-12, rtol=0)
    assert torch.allclose(
        out.hardest,
        torch.stack([(bank[rows] @ q).max() / 0.2 for q, rows in zip(query, drawn, strict=True)]),
    )
