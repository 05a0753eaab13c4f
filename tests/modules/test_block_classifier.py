"""DPC's and CoCLR's classifiers against computations written out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import load_initial_weights
from vclr_lightning.modules import FinetuneModule, ParameterGroup
from vclr_lightning.objectives.conv_gru import ConvGRUCell


class Maps(nn.Module):
    """A network of clips whose maps are signed: weighted differences of neighbouring pixels."""

    num_features, clip_dims = 4, 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, 4, 2, stride=2, bias=False)

    def forward_map(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_map(x).relu().flatten(2).mean(2)


def module_of(**options: Any) -> FinetuneModule:
    torch.manual_seed(0)
    given = {
        "head": "gru",
        "batchnorm": True,
        "num_classes": 3,
        "optimizer": partial(Adam, lr=1e-3),
    }
    return FinetuneModule(backbone=Maps(), **(given | options))


def clips_of(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_hand(module: FinetuneModule, clips: Tensor) -> NDArray[np.float64]:
    """Position by position in NumPy: the last state of the GRU, BatchNorm, classifier."""
    mean, std = (np.array(v)[:, None, None, None] for v in (module.pixels.mean, module.pixels.std))
    kernel = module.query_encoder.layer.weight.detach().double().numpy()
    gates = {
        name: (gate.weight[:, :, 0, 0].detach().double().numpy(), gate.bias.detach().numpy())
        for name, gate in module.context.gru.named_children()
    }

    def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-x))

    def apply(name: str, x: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
        weight, bias = gates[name]
        return weight @ np.concatenate([x, h]) + bias

    rows = []
    for video in clips.double().numpy():
        states = {}
        for block in video:
            pixels = (block / 255 - mean) / std
            for i in range(pixels.shape[2] // 2):
                for j in range(pixels.shape[3] // 2):
                    x = np.zeros(4)
                    times = pixels.shape[1] // 2
                    for t in range(times):
                        cube = pixels[:, 2 * t : 2 * t + 2, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                        x += np.maximum((kernel * cube).sum(axis=(1, 2, 3, 4)), 0) / times
                    h = states.get((i, j), np.zeros(4))
                    u, r = sigmoid(apply("update", x, h)), sigmoid(apply("reset", x, h))
                    states[i, j] = (1 - u) * h + u * np.tanh(apply("new", x, r * h))
        context = sum(states.values()) / len(states)
        norm = module.norm
        scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + 1e-5)
        context = (context - norm.running_mean.numpy()) * scale + norm.bias.detach().numpy()
        linear = module.classifier
        rows.append(linear.weight.detach().numpy() @ context + linear.bias.detach().numpy())
    return np.array(rows)


def test_the_gru_reads_every_block() -> None:
    module = module_of().eval()
    nn.init.normal_(module.norm.running_mean)
    nn.init.uniform_(module.norm.weight)
    clips = clips_of(2, 3, 3, 4, 6, 6)
    with torch.no_grad():
        found = module(clips)
    np.testing.assert_allclose(found.numpy(), by_hand(module, clips), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, module(clips.flip(1)))  # in their order


def test_where_it_starts_and_what_drops_out() -> None:
    module = module_of(dropout=0.5)
    weight = module.classifier.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(3))
    assert module.classifier.bias.eq(0).all()
    assert (module.context.gru.dropout, module.dropout.p) == (0.1, 0.5)
    clips = clips_of(4, 3, 3, 2, 4, 4)
    assert not torch.equal(module(clips), module(clips))
    with pytest.raises(UserError, match="batch_size of 2"):
        module(clips[:1])


@pytest.mark.parametrize("names", ["own", "authors"])
def test_the_gru_is_the_pretrained_one(tmp_path: Path, names: str) -> None:
    gru, backbone = ConvGRUCell(num_features=4), Maps()
    tensors = {f"query_encoder.{name}": x for name, x in backbone.state_dict().items()}
    theirs = {"update": "update_gate", "reset": "reset_gate", "new": "out_gate"}
    for name, value in gru.state_dict().items():
        gate, _, kind = name.partition(".")
        if names == "own":
            tensors[f"objectives.dpc.gru.{name}"] = value
        else:
            tensors[f"agg.ConvGRUCell_00.{theirs[gate]}.{kind}"] = value
            tensors[f"agg.cell_list.0.{theirs[gate]}.{kind}"] = value
    torch.save({"state_dict": tensors}, tmp_path / "dpc.ckpt")
    module = module_of()
    report = load_initial_weights(module, tmp_path / "dpc.ckpt")
    for name, value in gru.state_dict().items():
        assert torch.equal(module.context.gru.state_dict()[name], value)
        assert f"context.gru.{name}" in report.loaded


def test_a_gru_that_the_file_lacks_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = {f"query_encoder.{name}": x for name, x in Maps().state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "other.ckpt")
    load_initial_weights(module_of(), tmp_path / "other.ckpt")
    assert "holds no ConvGRU" in caplog.text
    tensors["objectives.dpc.gru.update.weight"] = torch.zeros(2, 2)
    torch.save({"state_dict": tensors}, tmp_path / "part.ckpt")
    with pytest.raises(UserError, match="ConvGRU"):
        load_initial_weights(module_of(), tmp_path / "part.ckpt")


def test_frozen_is_all_but_batchnorm_and_classifier() -> None:
    module = module_of(frozen=True).train()
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained == {"norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    assert not module.context.training
    assert module.norm.training


def test_the_network_has_a_rate_of_its_own() -> None:
    rule = ParameterGroup(parameters="query_encoder.*", lr=0.1)
    module = module_of(head="tsn", batchnorm=False, groups={"network": rule})
    rates = {
        id(parameter): group["lr"]
        for group in module.configure_optimizers().param_groups
        for parameter in group["params"]
    }
    assert rates[id(module.query_encoder.layer.weight)] == pytest.approx(1e-4)
    assert rates[id(module.classifier.weight)] == rates[id(module.classifier.bias)] == 1e-3
    assert len(rates) == len(list(module.parameters()))


def test_a_batch_is_mirrored_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = clips_of(6, 1, 3, 2, 4, 4)
    batch: Any = {"views": {"segments": clips}, "label": torch.tensor([0, 1, 2, 0, 1, 2])}
    mirrored = batch | {"views": {"segments": clips.flip(-1)}}
    losses = []
    for p, given in ((0.0, batch), (0.0, mirrored), (1.0, batch)):
        module = module_of(head="tsn", batchnorm=False, dropout=0.0, batch_flip_p=p)
        monkeypatch.setattr(module, "log_means", lambda *a, **k: None)
        losses.append(module.training_step(given, 0).item())
    assert losses[0] != losses[1] == losses[2]
    module = module_of(head="tsn", batchnorm=False, dropout=0.0, batch_flip_p=0.5)
    monkeypatch.setattr(module, "log_means", lambda *a, **k: None)
    found = {module.training_step(batch, 0).item() for _ in range(20)}
    assert found == set(losses)  # all or none


def test_mistakes() -> None:
    for wrong, words in (
        ({"head": "rnn"}, "head='rnn'"),
        ({"averaging": "mean"}, "averaging='mean'"),
        ({"batch_flip_p": 2}, "batch_flip_p=2"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ):
        with pytest.raises(UserError, match=words):
            module_of(**wrong)
