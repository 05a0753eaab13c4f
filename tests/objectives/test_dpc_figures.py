"""DPC and MemDPC as whole models, against figures of their authors' code.

The figures are of TengdaHan/DPC 1592e5f and TengdaHan/MemDPC d7dbbf0 in double precision, on two
videos of five blocks of five frames of 64 x 64 pixels, of which two are predicted, without dropout
and with 32 rows of memory. Parameters and frames are drawn here as they were for them.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.models import ResNet2d3d
from vclr_lightning.objectives import DPC, MemDPC

FIGURES = json.loads((Path(__file__).parents[1] / "reference" / "dpc_memdpc.json").read_text())
# Our names of the authors' modules.
MODULES = {
    "agg": "gru",
    "agg_f": "forward_gru",
    "agg_b": "backward_gru",
    "mb": "memory",
    "reset_gate": "reset",
    "update_gate": "update",
    "out_gate": "new",
}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        x *= np.sqrt(2 / np.prod(shape[1:]))
    else:
        x = 0.1 * x + name.endswith("weight")
    return torch.from_numpy(x)


def ours(name: str, predictor: str, model: nn.ModuleDict) -> nn.Parameter:
    """Our parameter of the authors' name."""
    if name.startswith("backbone."):
        return model.get_parameter(name)
    first, *rest = name.split(".")
    first = predictor if first == "network_pred" else MODULES[first]
    return model.get_parameter(".".join(["objective", first, *(MODULES.get(r, r) for r in rest)]))


@pytest.mark.parametrize(("method", "predictor"), [("dpc", "predictor"), ("memdpc", "addressing")])
def test_loss_gradients_and_statistics(method: str, predictor: str) -> None:
    figures = FIGURES[method]
    backbone = ResNet2d3d(depth=18, track_running_stats=method == "memdpc")
    options: dict[str, Any] = {"num_features": 256, "predict": 2, "dropout": 0.0}
    objective = DPC(**options) if method == "dpc" else MemDPC(**options, slots=32)
    model = nn.ModuleDict({"backbone": backbone, "objective": objective}).double()
    parameters = {name: ours(name, predictor, model) for name in figures["gradients"]}
    assert {id(p) for p in parameters.values()} == {id(p) for p in model.parameters()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(drawn(name, tuple(parameter.shape)))

    frames = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 5, 3, 5, 64, 64)))
    maps = backbone.forward_map(frames.flatten(0, 1)).unflatten(0, (2, 5))
    out = objective({"blocks": maps}, {})  # type: ignore[typeddict-item]
    assert out.loss.item() == pytest.approx(figures["loss"], rel=1e-10)
    top1 = [float(v) for name, v in out.metrics.items() if name.startswith("top1")]
    assert top1 == pytest.approx(np.atleast_1d(figures["top1"]).tolist())
    out.loss.backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        norm, first = figures["gradients"][name]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-8), name
        assert parameter.grad.flatten()[0].item() == pytest.approx(first, rel=1e-6), name
    buffers = {name: b for name, b in model.named_buffers() if "running" in name}
    assert buffers.keys() == figures["buffers"].keys()
    for name, norm in figures["buffers"].items():
        assert buffers[name].norm().item() == pytest.approx(norm, rel=1e-10), name
