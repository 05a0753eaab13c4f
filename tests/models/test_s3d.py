"""S3D against figures computed with CoCLR's code, from a checkpoint of its names."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import TorchvisionVideo, load_backbone, load_initial_weights
from vclr_lightning.models.coclr_names import torchvision_names

FIGURES = json.loads((Path(__file__).parents[1] / "reference" / "g15_s3d.json").read_text())
# The last layer of each of CoCLR's blocks.
BLOCKS = {"block1": 0, "block2": 3, "block3": 6, "block4": 12, "block5": 15}


def named(name: str, shape: tuple[int, ...]) -> Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(values))


def coclrs_weights() -> dict[str, Tensor]:
    """CoCLR's S3D by its own names, each tensor twice."""
    state: dict[str, Tensor] = {}
    for name, shape, kind, twice in FIGURES["params"]:
        if kind == "weight_nd":
            tensor = named(name, shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif kind == "norm_weight":
            tensor = 1 + 0.1 * named(name, shape)
        elif kind == "bias":
            tensor = 0.01 * named(name, shape)
        elif name.endswith("num_batches_tracked"):
            tensor = torch.tensor(0)
        else:
            tensor = torch.full(shape, float(name.endswith("running_var")), dtype=torch.float64)
        state[name] = state[twice] = tensor
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What CoCLR's pretraining writes."""
    path = tmp_path_factory.mktemp("coclr") / "epoch299.pth.tar"
    weights = coclrs_weights()
    state = {f"encoder_q.0.{n}": t for n, t in weights.items()}
    state |= {f"encoder_k.0.{n}": torch.zeros_like(t) for n, t in weights.items()}
    state |= {"encoder_q.2.weight": torch.zeros(8, 8, 1, 1, 1), "queue": torch.zeros(16, 12)}
    torch.save({"epoch": 299, "state_dict": state}, path)
    return path


def test_s3d_has_coclrs_layers() -> None:
    with torch.device("meta"):
        backbone = TorchvisionVideo(name="s3d")
    layers = list(backbone.modules())
    norms = [m for m in layers if isinstance(m, nn.BatchNorm3d)]
    convolutions = [m for m in layers if isinstance(m, nn.Conv3d)]
    assert sum(p.numel() for p in backbone.parameters()) == FIGURES["parameters"] == 7_910_048
    assert len(norms) == FIGURES["batchnorm_layers"]
    assert len(convolutions) == FIGURES["conv_layers"]
    assert all(c.bias is None for c in convolutions)
    settings = {(n.eps, n.momentum, n.affine, n.track_running_stats) for n in norms}
    assert settings == {tuple(values) for values in FIGURES["batchnorm"]}


def test_the_start_is_coclrs() -> None:
    torch.manual_seed(0)
    backbone = TorchvisionVideo(name="s3d", conv_std=0.01)
    for convolution in (m for m in backbone.modules() if isinstance(m, nn.Conv3d)):
        weight = convolution.weight.detach()
        n = weight.numel()
        assert abs(float(weight.std()) - 0.01) < 0.05 / np.sqrt(2 * n)
        assert abs(float(weight.mean())) < 0.05 / np.sqrt(n)
    for figure in FIGURES["init_conv_std"].values():
        assert abs(figure - 0.01) < 2e-4


def similar(found: Tensor, figure: dict[str, Any]) -> None:
    assert list(found.shape) == figure["shape"]
    values = found.detach().double().numpy().ravel()
    computed = {
        "mean": values.mean(),
        "std": values.std(),
        "l2": np.linalg.norm(values),
        "max": values.max(),
    }
    for name, value in computed.items():
        assert value == pytest.approx(figure[name], rel=1e-9), name
    np.testing.assert_allclose(values[:8], figure["first"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs_and_gradients_are_coclrs(mode: str, checkpoint: Path) -> None:
    backbone: Any = load_backbone(checkpoint).double().train(mode == "train")
    backbone.load_state_dict(  # in float64, which the file's weights are, too
        {n: t.double() for n, t in torchvision_names(coclrs_weights()).items()}
    )
    x = named("g15.s3d.input", (2, 3, 16, 64, 64))
    assert float(x.square().sum()) == pytest.approx(FIGURES["input_check"]["sum_of_squares"])
    figures, outputs = FIGURES[mode], {}
    for block, layer in BLOCKS.items():
        backbone.features[layer].register_forward_hook(
            lambda module, inputs, output, block=block: outputs.update({block: output})
        )
    with torch.set_grad_enabled(mode == "train"):
        maps = backbone.forward_map(x)
    similar(maps, figures["output"])
    for block in BLOCKS:
        similar(outputs[block], figures["blocks"][block])
    if mode == "train":
        (maps * named("g15.s3d.cotangent", tuple(maps.shape))).sum().backward()
        norms = {n: p.grad.norm() for n, p in backbone.named_parameters()}
        expected = torchvision_names(figures["grad_l2_of_sum_output_times_cotangent"])
        assert norms.keys() == expected.keys()
        for name, norm in norms.items():
            assert float(norm) == pytest.approx(expected[name], rel=1e-6), name
        buffers = dict(backbone.named_buffers())
        running = torchvision_names(FIGURES["running_stats_after_one_train_forward"])
        for name, first in running.items():
            np.testing.assert_allclose(buffers[name].flatten()[:8], first, rtol=1e-8)


def test_a_checkpoint_of_coclr_is_read_as_its_query_encoder(checkpoint: Path) -> None:
    loaded: Any = load_backbone(checkpoint)
    norms = [m for m in loaded.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {n.eps for n in norms} == {1e-5}
    ours = TorchvisionVideo(name="s3d")
    report = load_initial_weights(ours, checkpoint)
    assert report.missing == ()
    assert len(report.loaded) == len(FIGURES["params"])
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    assert float(loaded.state_dict()["features.0.0.0.weight"].abs().max()) > 0


def test_a_classifier_of_coclr_loads_by_name(tmp_path: Path) -> None:
    state = {f"backbone.{n}": t for n, t in coclrs_weights().items()}
    state["final_fc.1.weight"] = torch.zeros(101, 1024)
    torch.save({"state_dict": state}, tmp_path / "finetuned.pth.tar")
    report = load_initial_weights(TorchvisionVideo(name="s3d"), tmp_path / "finetuned.pth.tar")
    assert (report.missing, report.left) == ((), ("final_fc.1.weight",))


@pytest.mark.parametrize("shape", [(7, 32, 32), (8, 16, 32), (8, 32, 16)])
def test_clips_that_are_too_small_are_named(shape: tuple[int, int, int]) -> None:
    backbone = TorchvisionVideo(name="s3d").eval()
    with pytest.raises(UserError, match="S3D takes clips of at least 8 frames of 17 x 17 pixels"):
        backbone(torch.zeros(1, 3, *shape))
    with torch.no_grad():
        assert backbone.forward_map(torch.zeros(1, 3, 8, 17, 17)).shape == (1, 1024, 1, 1, 1)
    with pytest.raises(UserError, match="conv_std=0 must be above 0"):
        TorchvisionVideo(name="s3d", conv_std=0)
