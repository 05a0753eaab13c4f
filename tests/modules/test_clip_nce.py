"""The first stage of CoCLR trains as its authors' code does, step by step."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vclr_lightning.modules import MomentumEncoder, PretrainModule
from vclr_lightning.objectives import ClipNCE

REFERENCE = Path(__file__).parents[1] / "reference"
FIGURES = json.loads((REFERENCE / "g15_clip_nce.json").read_text())["nce"]
ARRAYS = np.load(REFERENCE / "g15_clip_nce.npz")


def named(name: str, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape))


class Lookup(nn.Module):
    """One convolution; it is given the number of a clip in each pixel, and sees the clip."""

    num_features, clip_dims = 8, 3
    pixel_mean, pixel_std = (0.0,) * 3, (1 / 255,) * 3

    def __init__(self, variant: str, clips: Tensor) -> None:
        super().__init__()
        bn = variant == "bn"
        self.conv = nn.Conv3d(3, 8, 3, stride=2, padding=1, bias=not bn)
        self.bn = nn.BatchNorm3d(8) if bn else nn.Identity()
        self.clips = clips

    def forward_map(self, x: Tensor) -> Tensor:
        clips = self.clips[x[:, 0, 0, 0, 0].round().long()]
        y: Tensor = self.bn(self.conv(clips)).relu()
        return y

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.forward_map(x))


def theirs(module: Any, side: str) -> dict[str, Tensor]:
    """Parameters and running statistics by the authors' names."""
    network, head = module.encoders[side], getattr(module.objectives["nce"], f"{side}_head")
    found = {f"0.{name}": value for name, value in network.state_dict().items()}
    found |= {f"2.{name}": value for name, value in head[0].state_dict().items()}
    found |= {f"4.{name}": value for name, value in head[2].state_dict().items()}
    return {name: value.clone() for name, value in found.items() if "num_batches" not in name}


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_unused: Any) -> None:
        # Our key encoder has moved at the end of the step before.
        self.steps.append({"key": theirs(pl_module, "key")})

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        sides = {"0": pl_module.encoders["query"], "2": pl_module.objectives["nce"].query_head[0]}
        sides["4"] = pl_module.objectives["nce"].query_head[2]
        self.steps[-1]["grad_l2"] = {
            f"{number}.{name}": float(parameter.grad.norm())
            for number, part in sides.items()
            for name, parameter in part.named_parameters()
        }

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, *_unused: Any
    ) -> None:
        queue = pl_module.objectives["nce"].queue
        self.steps[-1] |= {
            "loss": float(outputs["losses"]["nce"]),
            "query": theirs(pl_module, "query"),
            "running": theirs(pl_module, "key"),
            "queue": queue.rows.clone(),
            "pointer": int(queue.pointer),
        }


def _module(variant: str, clips: Tensor) -> PretrainModule:
    module = PretrainModule(
        backbone=Lookup(variant, clips),
        objectives={"nce": partial(ClipNCE, embedding_dim=FIGURES["dim"], queue_size=FIGURES["K"])},
        encoders={"key": MomentumEncoder(momentum=FIGURES["m"], batchnorm="none")},
        optimizer=partial(torch.optim.Adam, lr=FIGURES["lr"], weight_decay=FIGURES["weight_decay"]),
    ).double()
    nce: Any = module.objectives["nce"]
    parts = {"0": module.encoders["query"], "2": nce.query_head[0], "4": nce.query_head[2]}
    with torch.no_grad():
        for entry in FIGURES["variants"][variant]["params"]:
            _, number, name = entry["name"].split(".", 2)
            if entry["kind"] == "default":  # running statistics
                continue
            value = named(entry["name"], entry["shape"])
            if entry["kind"] == "weight_nd":
                value *= math.sqrt(2 / math.prod(entry["shape"][1:]))
            else:
                value = 1 + 0.1 * value if entry["kind"] == "norm_weight" else 0.01 * value
            parameter = parts[number].get_parameter(name)
            parameter.copy_(value.view(parameter.shape))
        nce.queue.rows.copy_(torch.from_numpy(ARRAYS["queue_init"].T))
        nce.queue.pointer.fill_(FIGURES["pointer_before"])
    module.reset_key_encoder()
    return module


@pytest.mark.parametrize("variant", FIGURES["variants"])
def test_losses_gradients_queue_and_both_encoders(variant: str) -> None:
    size, steps = FIGURES["B"], FIGURES["steps"]
    shape = (size, 2, *FIGURES["clip"])
    pairs = torch.cat([named(f"g15.nce.batch{s}", shape) for s in range(steps)])
    clips = pairs.transpose(0, 1).flatten(0, 1)  # all queries, then all keys
    numbers = torch.arange(len(clips), dtype=torch.uint8).view(2, steps, size, 1, 1, 1, 1, 1)
    pixels = numbers.expand(-1, -1, -1, -1, 3, 2, -1, -1)  # of clips of two frames
    batches: list[Any] = [
        {
            "views": {"query": pixels[0, s], "key": pixels[1, s]},
            "rows": {},
            "targets": {},
            "video_id": torch.arange(size),
            "group_id": torch.arange(size),
        }
        for s in range(steps)
    ]
    recorder = Recorder()
    Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=1,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(_module(variant, clips), DataLoader(batches, batch_size=None))  # type: ignore[arg-type]

    figures = FIGURES["variants"][variant]
    assert len(recorder.steps) == steps == 3
    for s, ours in enumerate(recorder.steps):
        assert ours["loss"] == pytest.approx(figures["loss"][s], abs=1e-9)
        assert ours["pointer"] == figures["pointer_after"][s]
        assert ours["grad_l2"] == pytest.approx(figures["grad_l2"][s], rel=1e-9)
        prefix = f"{variant}.step{s}"
        np.testing.assert_allclose(ours["queue"].T, ARRAYS[f"{prefix}.queue"], atol=1e-9)
        compared = 0
        for side in ("query", "key"):
            for name, value in ours[side].items():
                if "running" in name and side == "key":
                    value = ours["running"][name]  # after the step's keys
                expected = ARRAYS[f"{prefix}.{side}.{name}"]
                np.testing.assert_allclose(value.view(expected.shape), expected, atol=1e-9)
                compared += 1
        assert compared == 2 * sum("num_batches" not in p["name"] for p in figures["params"])
