"""The probe of BatchNorm and a linear classifier against one written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import torch_generator
from vclr_lightning.evaluation.batchnorm_probe import BatchNormProbe
from vclr_lightning.evaluation.cross_validation import ProbeData


def data(n: int = 9) -> ProbeData:
    features = torch.randn(n, 5, generator=torch.Generator().manual_seed(3)) * 4 + 2
    return ProbeData(features, torch.arange(n) % 3, torch.arange(n), 3)


def by_hand(rows: ProbeData, unseen: torch.Tensor, *, epochs: int, batch: int) -> np.ndarray:
    """Gradients by hand, momentum and weight decay by hand, rate / 10 after epoch 2."""
    x, y = rows.features.double().numpy(), rows.targets.numpy()
    generator = torch_generator(0, "batchnorm")
    weight = torch.empty(3, 5)
    weight.normal_(std=0.01, generator=generator)
    values = {"w": weight.double().numpy(), "b": np.zeros(3), "g": np.ones(5), "s": np.zeros(5)}
    speed = {name: np.zeros_like(value) for name, value in values.items()}
    mean, variance = np.zeros(5), np.ones(5)
    for epoch in range(epochs):
        rate = 0.5 * (0.1 if epoch >= 2 else 1)
        order = torch.randperm(len(x), generator=generator).numpy()
        for start in range(0, len(x), batch):
            part, label = x[order[start : start + batch]], y[order[start : start + batch]]
            m, v = part.mean(axis=0), part.var(axis=0)
            mean = 0.9 * mean + 0.1 * m
            variance = 0.9 * variance + 0.1 * part.var(axis=0, ddof=1)
            z = (part - m) / np.sqrt(v + 1e-5)
            scores = (z * values["g"] + values["s"]) @ values["w"].T + values["b"]
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            slope = odds / odds.sum(axis=1, keepdims=True)
            slope[np.arange(len(part)), label] -= 1
            slope /= len(part)
            back = slope @ values["w"]
            gradients = {
                "w": slope.T @ (z * values["g"] + values["s"]),
                "b": slope.sum(axis=0),
                "g": (back * z).sum(axis=0),
                "s": back.sum(axis=0),
            }
            for name, value in values.items():
                speed[name] = 0.9 * speed[name] + gradients[name] + 1e-3 * value
                values[name] = value - rate * speed[name]
    z = (unseen.double().numpy() - mean) / np.sqrt(variance + 1e-5)
    return (z * values["g"] + values["s"]) @ values["w"].T + values["b"]


def test_by_hand() -> None:
    rows, unseen = data(), torch.randn(4, 5)
    probe = BatchNormProbe(learning_rate=0.5, epochs=3, milestones=(2,), batch_size=3)
    found = probe.score(rows, unseen, show=False)
    np.testing.assert_allclose(
        found.scores.numpy(), by_hand(rows, unseen, epochs=3, batch=3), rtol=2e-3, atol=1e-4
    )
    torch.testing.assert_close(probe.score(rows, unseen, show=False).scores, found.scores)


def test_a_last_batch_of_one_video_joins_the_one_before() -> None:
    rows, unseen = data(7), torch.randn(4, 5)
    found = BatchNormProbe(epochs=2, batch_size=3).score(rows, unseen, show=False).scores
    assert found.isfinite().all()


def test_mistakes() -> None:
    for wrong in ({"learning_rate": 0}, {"epochs": 0}, {"milestones": [0]}, {"batch_size": 1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            BatchNormProbe(**wrong)
    with pytest.raises(UserError, match="learning_rate=1e\\+20"):
        BatchNormProbe(learning_rate=1e20).score(data(), torch.randn(4, 5), show=False)
    with pytest.raises(UserError, match="one training video"):
        BatchNormProbe().score(data(1), torch.randn(4, 5), show=False)
