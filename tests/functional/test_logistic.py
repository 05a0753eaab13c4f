"""Logistic regression: many rates at once, and what each would be alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vclr_lightning.core.random import torch_generator
from vclr_lightning.functional.logistic import fit_logistic

RATES = (0.01, 0.1, 1.0)


def problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(50) % 3
    x = torch.randn(3, 7, generator=generator)[y] + torch.randn(50, 7, generator=generator)
    return x.double(), y


def test_is_torch_s_sgd_at_each_rate() -> None:
    x, y = problem()
    heads = fit_logistic(
        x,
        y,
        num_classes=3,
        learning_rates=RATES,
        epochs=4,
        batch_size=16,
        weight_decay=0.01,
        seed=5,
    )
    steps = 4 * 4
    for number, rate in enumerate(RATES):
        layer = torch.nn.Linear(7, 3, dtype=torch.float64)
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        groups = [{"params": [layer.weight], "weight_decay": 0.01}, {"params": [layer.bias]}]
        sgd = torch.optim.SGD(groups, lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
        generator = torch_generator(5, "logistic")
        for _ in range(4):
            for rows in torch.split(torch.randperm(50, generator=generator), 16):
                sgd.zero_grad()
                cross_entropy(layer(x[rows]), y[rows]).backward()
                sgd.step()
                schedule.step()
        assert torch.allclose(heads.weight[number], layer.weight, atol=1e-9)
        assert torch.allclose(heads.bias[number], layer.bias, atol=1e-9)
        assert torch.allclose(heads.scores(x)[number], layer(x), atol=1e-8)


def test_rates_do_not_touch_each_other() -> None:
    x, y = problem()
    together = fit_logistic(x, y, num_classes=3, learning_rates=[0.1, 1e9], epochs=3)
    alone = fit_logistic(x, y, num_classes=3, learning_rates=[0.1], epochs=3)
    assert torch.allclose(together.weight[0], alone.weight[0])
