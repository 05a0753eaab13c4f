"""The classifier of videos: heads by hand, groups, what is frozen, averaging of views."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.schedules import StepDecay
from vclr_lightning.functional.embedding import average_views
from vclr_lightning.functional.pixels import normalize
from vclr_lightning.models import TinyBackbone, TorchvisionResNet
from vclr_lightning.models.tsm import TemporalShift
from vclr_lightning.modules import FinetuneModule
from vclr_lightning.modules.optimization import tsm_groups


def module_of(**options: Any) -> FinetuneModule:
    torch.manual_seed(0)
    options.setdefault("backbone", TinyBackbone(width=8, stages=2))
    return FinetuneModule(num_classes=3, optimizer=partial(SGD, lr=0.1), init_std=1, **options)


class Volume(nn.Module):
    """A network of clips."""

    num_features, clip_dims = 3, 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4)) ** 2


def clips_of(*shape: int) -> torch.Tensor:
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_tsn_classifies_the_mean_of_the_features() -> None:
    module = module_of().eval()
    clips = clips_of(2, 5, 3, 1, 16, 16)
    with torch.no_grad():
        features = module.query_encoder(normalize(clips.flatten(0, 1)).squeeze(2)).view(2, 5, -1)
        torch.testing.assert_close(module(clips), module.classifier(features.mean(1)))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_in_evaluation_mode_is_trained_unless_frozen(frozen: bool) -> None:
    module = module_of(backbone=TinyBackbone(width=8, stages=2).eval(), frozen=frozen)
    tracked = module.query_encoder.stem_norm.num_batches_tracked
    module.training_step(
        {"views": {"segments": clips_of(2, 3, 3, 1, 16, 16)}, "label": torch.tensor([0, 1])}, 0
    )
    assert int(tracked) == (0 if frozen else 1)
    assert all(layer.training is not frozen for layer in module.query_encoder.modules())
    assert module.classifier.training


def test_a_network_that_would_stay_as_it_is_is_refused_unless_frozen() -> None:
    backbone = TinyBackbone(width=8, stages=2).requires_grad_(False)
    with pytest.raises(UserError, match=r"TinyBackbone requires a gradient.*or give frozen=True"):
        module_of(backbone=backbone)
    module_of(backbone=backbone, frozen=True)


def test_tsm_averages_the_scores_of_shifted_frames() -> None:
    module = module_of(head="tsm").eval()
    other = TinyBackbone(width=8, stages=2).eval()
    other.load_state_dict(module.query_encoder.state_dict())
    TemporalShift(other).num_frames = 5
    clips = clips_of(2, 5, 3, 1, 16, 16)
    with torch.no_grad():
        features = other(normalize(clips.flatten(0, 1)).squeeze(2)).view(2, 5, -1)
        torch.testing.assert_close(module(clips), module.classifier(features).mean(1))
        turned = module(clips.flip(1))
    assert not torch.allclose(module(clips), turned, atol=1e-4)  # it sees the order


def test_networks_of_clips_average_clips() -> None:
    module = module_of(backbone=Volume())
    clips = clips_of(2, 4, 3, 6, 8, 8)
    features = normalize(clips.flatten(0, 1)).mean(dim=(2, 3, 4)) ** 2
    module.eval()
    expected = module.classifier(features.view(2, 4, 3).mean(1))
    torch.testing.assert_close(module(clips), expected)


@pytest.mark.parametrize("head", ["tsn", "tsm"])
def test_views_are_averaged_as_logits_or_as_probabilities(head: str) -> None:
    module = module_of(head=head)
    views = clips_of(2, 3, 4, 3, 1, 16, 16)
    scores = module.scores(views)
    assert module.training
    module.eval()
    by_hand = []
    for video in views:
        rows = []
        for view in video:
            with torch.no_grad():
                logits = module(view[None])[0]
            exponents = [float(value.exp()) for value in logits]
            share = torch.tensor([value / sum(exponents) for value in exponents])
            rows.append(logits if head == "tsn" else share)
        by_hand.append(sum(rows) / len(rows))
    torch.testing.assert_close(scores, torch.stack(by_hand))


def test_frozen_networks_stay_as_they_are() -> None:
    module = module_of(frozen=True, dropout=0)
    before = {name: value.clone() for name, value in module.query_encoder.state_dict().items()}
    optimizer = module.configure_optimizers()
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [
        id(p) for p in module.classifier.parameters()
    ]
    module.train()
    assert not module.query_encoder.training
    weight = module.classifier.weight.detach().clone()
    batch: Any = {"views": {"segments": clips_of(4, 2, 3, 1, 16, 16)}, "label": torch.arange(4) % 3}
    module.training_step(batch, 0).backward()
    optimizer.step()
    assert not torch.equal(module.classifier.weight, weight)
    for name, value in module.query_encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_groups_of_tsm_hold_every_parameter_once() -> None:
    backbone = TorchvisionResNet(name="resnet18")
    backbone.extra = nn.Conv2d(4, 4, 1)
    classifier = nn.Linear(512, 3)
    groups = tsm_groups(backbone, classifier)
    held = [id(p) for some in groups.values() for p in some]
    assert sorted(held) == sorted(map(id, [*backbone.parameters(), *classifier.parameters()]))
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(groups["norms"]) == 2 * len(norms)
    assert [id(p) for p in groups["biases"]] == [id(backbone.extra.bias)]
    module = FinetuneModule(
        backbone=backbone,
        num_classes=3,
        head="tsm",
        optimizer=partial(SGD, lr=0.0075, momentum=0.9, weight_decay=5e-4),
    )
    found = {
        group["name"]: (group["lr"], group["weight_decay"])
        for group in module.configure_optimizers().param_groups
    }
    assert found == {
        "weights": (0.0075, 5e-4),
        "biases": (0.015, 0),
        "norms": (0.0075, 0),
        "classifier weight": (pytest.approx(0.0375), 5e-4),
        "classifier bias": (pytest.approx(0.075), 0),
    }


def test_rates_fall_together_at_the_milestones() -> None:
    parameters = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (1.0, 5.0)]
    optimizer = SGD(parameters, lr=0.1)
    scheduler = StepDecay(optimizer, steps_per_epoch=3, epochs=5, milestones=[4, 2])
    rates = []
    for _ in range(15):
        rates.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    expected = [10.0 ** -(0 if step < 6 else 1 if step < 12 else 2) for step in range(15)]
    assert rates == [[pytest.approx(rate), pytest.approx(5 * rate)] for rate in expected]


def test_mistakes() -> None:
    for options, message in [
        ({"head": "tsp"}, "head='tsp' is unknown; take tsn, tsm or gru"),
        ({"dropout": 1}, "dropout=1"),
        ({"backbone": Volume(), "head": "tsm"}, "is 3D"),
        ({"backbone": nn.Flatten()}, "has no whole number 'clip_dims'"),
    ]:
        with pytest.raises(UserError, match=message):
            module_of(**options)
    with pytest.raises(UserError, match="num_classes=1"):
        FinetuneModule(backbone=Volume(), num_classes=1, optimizer=partial(SGD, lr=1))
    with pytest.raises(UserError, match="set frames_per_clip=1"):
        module_of()(clips_of(1, 2, 3, 4, 16, 16))
    with pytest.raises(UserError, match="averaging='mean'"):
        average_views(torch.zeros(1, 1, 2), averaging="mean")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="milestones"):
        StepDecay(SGD([torch.zeros(1)], lr=1), steps_per_epoch=1, epochs=1, milestones=[-1])
