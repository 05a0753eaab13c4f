"""Methods on blocks and clips of small real videos, through the command: train, stop, go on."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from vclr_lightning.data.sampling import BlockSampler

Fork = Callable[..., Any]

SIGNED = "layer4.1.relu:input"  # of this network; the 2D-3D ResNet's own maps are signed
NETWORK_3D = ["backbone=slow_r50", "backbone.depth=18", "backbone.width=4"]
DENSE = [
    *NETWORK_3D,
    "frames_per_clip=3",
    "frame_stride=1",
    "objective.samplers.blocks.blocks=4",
]
METHODS = {
    "dpc": [
        *DENSE,
        "+add=video_order",
        "queue_size=32",
        f"objective.objectives.dpc.of=blocks@{SIGNED}",
        "objective.objectives.dpc.predict=2",
        "objective.transforms.blocks.steps.crop.crop.size=40",
    ],
    "memdpc": [
        *DENSE,
        f"objective.objectives.memdpc.of=blocks@{SIGNED}",
        "objective.objectives.memdpc.predict=1",
        "objective.objectives.memdpc.slots=8",
    ],
    "vcop": [*NETWORK_3D, "frames_per_clip=4", "objective.samplers.blocks.gap=1"],
    "opn": [
        "backbone=tiny",
        "backbone.width=4",
        "objective.samplers.blocks.gap=2",
        "objective.transforms.blocks.steps.region.crop.size=40",
        "objective.transforms.blocks.steps.crop.crop.size=80",
    ],
    "speednet": [*NETWORK_3D, "frames_per_clip=6"],
    "st_puzzle": [*NETWORK_3D, "frames_per_clip=4", "objective.samplers.blocks.gap=1"],
}
CHANCE = {
    "dpc": 1 / (4 * 2 * 1),  # positions of 4 videos' two predicted blocks, 1 x 1 each
    "memdpc": 1 / 4,
    "vcop": 1 / 6,
    "opn": 1 / 12,
    "speednet": 1 / 2,
    "st_puzzle": 1 / 24,
}


@pytest.fixture(scope="module")
def common(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three epochs of three steps of 4 of 12 videos."""
    return [
        f"data.root={video_folder}",
        f"data.cache_dir={tmp_path_factory.mktemp('index')}",
        "data.holdout=0.34",
        "data.num_workers=0",
        "data.eval_frames=2",
        "trainer=cpu",
        "trainer.log_every_n_steps=1",
        "image_size=32",
        "batch_size=4",
        "epochs=3",
        "callbacks.online.every_n_epochs=3",
        "callbacks.checkpoint.every_n_steps=1",
    ]


def _state(folder: Path, method: str) -> dict[str, Any]:
    path = folder / "outputs" / "pretrain" / method / "last.ckpt"
    state = torch.load(path, weights_only=True)
    return {name: state[name] for name in ("state_dict", "optimizer_states", "global_step")}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_changes_nothing(
    method: str,
    common: list[str],
    fork: Fork,
    wait_for_rows: Callable[..., bool],
    tmp_path: Path,
) -> None:
    command = [f"name={method}", f"objective={method}", *common, *METHODS[method]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = fork(command, whole)
    assert process.wait() == 0, process.output()

    log = Path("outputs") / "pretrain" / method / "metrics.csv"
    process = fork(command, parts)
    if wait_for_rows(process, parts / log, 4):
        process.send(signal.SIGKILL)
    assert process.wait() in (-signal.SIGKILL, 0), process.output()
    process = fork(command, parts)
    assert process.wait() == 0, process.output()
    assert _equal(_state(parts, method), _state(whole, method))

    with (whole / log).open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(logged) == 9
    assert float(logged[-1][f"train/{method}/chance"]) == pytest.approx(CHANCE[method])
    if method == "dpc":
        assert {"train/video/loss", "train/order/loss"} <= set(logged[0])


def test_a_pretrained_network_is_evaluated(common: list[str], fork: Fork, tmp_path: Path) -> None:
    command = ["name=memdpc", "objective=memdpc", *common, *METHODS["memdpc"]]
    process = fork([*command, "epochs=1"], tmp_path)
    assert process.wait() == 0, process.output()
    data = [word for word in common if word.startswith(("data.root", "data.cache", "data.holdout"))]
    ckpt = "ckpt=outputs/pretrain/memdpc/last.ckpt"
    evaluation = ["stage=linear_probe", ckpt, "probe=knn", "features.num_frames=2", "trainer=cpu"]
    process = fork([*evaluation, *data, "data.num_workers=0"], tmp_path)
    assert process.wait() == 0, process.output()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", [[], ["recipe=common"]], ids=["own", "common"])
def test_recipes_and_vclr_s_losses_go_with_every_method(method: str, recipe: list[str]) -> None:
    words = [f"objective={method}", "+add=video_order", "backbone=tiny", "queue_size=64", *recipe]
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        cfg = compose("config", overrides=words)
    module = instantiate(cfg.stage.run.module, _convert_="all")
    assert set(module.objectives) == {method, "video", "order"}
    optim = instantiate(cfg.optim)
    optimizer = optim.optimizer(module.parameters())
    optim.scheduler(optimizer, steps_per_epoch=10, epochs=cfg.epochs)
    adam = not recipe and method in ("dpc", "memdpc")
    assert type(optimizer).__name__ == ("Adam" if adam else "SGD")
    assert (cfg.epochs == 400) is bool(recipe)


@pytest.mark.parametrize(
    ("method", "depth", "parameters"),
    [
        ("dpc", 18, 14_583_104),
        ("dpc", 34, 32_947_776),
        ("memdpc", 18, 15_436_608),
        ("memdpc", 34, 33_801_280),
    ],
)
def test_parameters_of_the_published_models(method: str, depth: int, parameters: int) -> None:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        cfg = compose("config", overrides=[f"objective={method}", f"backbone.depth={depth}"])
    module = instantiate(cfg.stage.run.module, _convert_="all")
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    tracked = [name for name, _ in module.named_buffers() if name.endswith("running_mean")]
    assert bool(tracked) is (method == "memdpc")  # DPC pretrains without running statistics
    assert module.required_views == {"blocks"}


def _transform(method: str, *words: str) -> Any:
    overrides = [f"objective={method}", *words]
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    return instantiate(cfg.data.transforms, _convert_="all")["blocks"]


@pytest.mark.parametrize(("method", "grey"), [("dpc", 0.5), ("memdpc", 0.25)])
def test_blocks_share_their_geometry_and_each_frame_has_its_own_colours(
    method: str, grey: float
) -> None:
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[:, :, 0] = np.arange(320) // 2  # where it is: red by column, green by row
    frame[:, :, 1] = np.arange(240)[:, None]
    frame[:, :, 2] = 77
    plain = _transform(
        method, *(f"objective.transforms.blocks.steps.{s}=null" for s in ("gray", "jitter"))
    )
    coloured = _transform(method)
    tops, flips, same = set(), set(), 0
    for seed in range(30):
        clip = plain([frame] * 40, np.random.default_rng(seed)).numpy()
        assert clip.shape == (3, 40, 128, 128)
        assert (clip == clip[:, :1]).all()  # one crop, one flip
        tops.add(int(clip[1, 0, 0, 0]))
        flips.add(bool(clip[0, 0, 0, 0] > clip[0, 0, 0, -1]))
        if method == "dpc":  # 224 pixels, every 1.75th: nearest neighbours, no mixture
            rows = np.unique(clip[1, 0, :, 0].astype(int))
            assert len(rows) == 128
            assert np.ptp(rows) in (222, 223)
            assert set(np.diff(rows)) == {1, 2}
        if seed < 8:
            noisy = coloured([frame] * 40, np.random.default_rng(seed)).numpy()
            assert len({noisy[:, t].tobytes() for t in range(40)}) > 30
            same += sum((noisy[0, t] == noisy[1, t]).all() for t in range(40))
    assert len(tops) > 5
    assert flips == {False, True}
    assert same / (8 * 40) == pytest.approx(grey, abs=0.1)


def test_published_schedules_and_samplers() -> None:
    """The drop rule, the steps of blocks, and one fall of MemDPC's learning rate."""
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        configs = {m: compose("config", overrides=[f"objective={m}"]) for m in METHODS}
        both = compose("config", overrides=["objective=dpc", "+add=video_order"])
    for method in ("dpc", "memdpc"):
        sampler = instantiate(configs[method].data.samplers)["blocks"]
        assert sampler == BlockSampler(blocks=8, frames_per_clip=5, stride=3, spare=3)
        assert sampler.min_frames == 121
    tuples = instantiate(both.data.samplers)["tuples"]
    assert (tuples.num_segments, tuples.frames_per_clip, tuples.stride) == (3, 5, 3)
    assert "tuples" not in both.data.transforms
    optim = instantiate(configs["memdpc"].optim)
    optimizer = optim.optimizer([torch.zeros(1, requires_grad=True)])
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 1e-5, (0.9, 0.999))
    schedule = optim.scheduler(optimizer, steps_per_epoch=2, epochs=500)
    rates = [schedule.rate(2 * epoch, 1e-3) for epoch in (0, 299, 300, 401, 499)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4])
    assert instantiate(configs["vcop"].data.samplers)["blocks"].min_frames == 64
    assert instantiate(configs["st_puzzle"].data.samplers)["blocks"].min_frames == 112
