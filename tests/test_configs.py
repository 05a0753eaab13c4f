"""Every configuration composes and builds; presets and experiments leave each other alone."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vclr_lightning.app.configuration import resolved
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.models import TinyBackbone, export_backbone
from vclr_lightning.modules import PretrainModule

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))

# Others name a stage that goes on from a pretrained network; they have tests of their own.
PRETRAINING = [
    name
    for name in EXPERIMENTS
    if not re.search(r"override /stage: (?!demo)", (CONF / f"experiment/{name}.yaml").read_text())
]

# Section 9 of the method: topic, switch, the paper's value, the released code's. The last three
# rows are those where the paper is silent.
DEVIATIONS = [
    ("order_normalize", "channels", "frames"),
    ("intra_form", "joint", "pairwise"),
    ("queue_init", "unit", "uniform"),
    ("global_batch", 512, 256),
    ("segments", "exact", "floor"),
    ("final_lr", 1e-6, 1e-6),
    ("eval_stretch", None, [256, 340]),
    ("test_draws", "centres", "random"),
    ("batches", "all", "request"),
    ("own_mask", "video", "none"),
    ("warmup_epochs", 5, 5),
    ("draws", "without_replacement", "without_replacement"),
    ("exclude_reversal", True, True),
]


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


def values(*overrides: str) -> dict[str, Any]:
    content = OmegaConf.to_container(composed(*overrides), resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def commands() -> Iterator[tuple[Path, list[str]]]:
    """The training commands in the comments of the configurations."""
    for path in FILES:
        for line in (CONF / path).read_text().splitlines():
            text = line.strip()
            if text.startswith("#") and "-m vclr_lightning.train" in text:
                words = shlex.split(text.lstrip("# "))
                yield path, words[words.index("vclr_lightning.train") + 1 :]


COMMANDS = list(commands())


def test_every_option_opens_with_its_command() -> None:
    shown = {path for path, _ in COMMANDS}
    without = {"part", "recipe", "callbacks", "stage", "study"}
    parts = {p for p in FILES if without & set(p.parts)}
    assert set(FILES) - shown <= parts | {Path("logger/csv.yaml"), Path("objective/vclr.yaml")}


@pytest.mark.parametrize(
    "overrides", [pytest.param(words, id=str(path)) for path, words in COMMANDS]
)
def test_commands_in_comments_compose(overrides: list[str]) -> None:
    first = (re.sub(r"^(num_segments=\d+),.*", r"\1", word) for word in overrides)  # of a sweep
    assert values(*(word for word in first if word not in ("...", "-m")))


@pytest.mark.parametrize(("preset", "experiment"), list(product(PRESETS, EXPERIMENTS)))
def test_order_of_preset_and_experiment_does_not_matter(preset: str, experiment: str) -> None:
    one, other = f"+preset={preset}", f"+experiment={experiment}"
    assert values(one, other) == values(other, one)
    # Neither was dropped.
    assert values(one, other)["switch"] == values(one)["switch"]
    assert values(one, other)["name"] == experiment


STAGES = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))
# What belongs to training, beside the network.
RECIPE = (
    *("num_segments", "queue_size", "batch_size", "epochs", "monitor", "objective", "optim"),
    *("module", "test", "callbacks", "model", "positions"),
)
AS_INIT = "vclr_lightning.stages.shared.network.network_of"


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield prefix, node
        return
    for key, value in node.items():
        yield from leaves(value, f"{prefix}.{key}".lstrip("."))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_goes_with_every_stage(experiment: str, stage: str) -> None:
    """Its data and network hold; its recipe holds for the stage that it is of, and for no other."""
    odd = len(experiment + stage) % 2
    preset = ("+preset=released",) if odd else ()
    words = (f"+experiment={experiment}", f"stage={stage}")
    cfg = composed(*(words[::-1] if odd else words), *preset)
    found: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    assert found["stage"]["name"] == stage
    # An experiment goes with every stage, so it gives none of them arguments of its own.
    assert found["stage"]["run"].keys() == composed(words[1]).stage.run.keys()
    assert found["switch"] == values(*preset)["switch"]
    own, before, now = (
        dict(leaves(OmegaConf.to_container(one, resolve=False)))
        for one in (composed(words[0]), composed(words[1]), cfg)
    )
    before |= {key: value for key, value in now.items() if key.startswith("switch.")}
    for key, value in own.items():
        settled = key in ("data.view", "data.holdout")
        if key.startswith("data.") and not settled:
            assert now[key] == value
        if key.startswith("backbone.") and own["backbone._target_"] != AS_INIT:
            assert now[key] == value
    trained = "pretrain" if stage == "demo" else stage
    file = CONF / "recipe" / trained / f"{experiment}.yaml"
    recipe = OmegaConf.load(file) if file.exists() else OmegaConf.create()
    said = dict(leaves(OmegaConf.to_container(recipe)))
    assert said.items() <= now.items()
    replaced = {key for key in before if any(key.startswith(f"{one}.") for one in said)}
    changed = {key for key in before | now if before.get(key, ...) != now.get(key, ...)}
    of_recipe = {key for key in changed if key.startswith(RECIPE)}
    assert of_recipe - replaced <= said.keys()


@pytest.mark.parametrize("suite", ["frozen", "paper"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_suite_beside_an_experiment_is_run_or_refused(suite: str, experiment: str) -> None:
    words = (f"+suite={suite}", f"+experiment={experiment}", "init=none", "image_size=64")
    words += ("frames_per_clip=1", "frame_stride=1")
    for order in (words, words[::-1]):
        cfg = composed(*order)
        if reason := refusal(cfg):
            assert "a suite has its own data sets" in reason
        else:
            assert cfg.stage.name == "evaluate"
            assert set(cfg.data) == {"roots", "annotations", "manifests", "cache_dir"}


def refusal(cfg: DictConfig) -> str:
    try:
        resolved(cfg)
    except UserError as error:
        return str(error)
    return ""


def test_your_own_experiment(tmp_path: Path) -> None:
    """In the present style, all values in one file; built on another; with a recipe for a stage."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    head = "# @package _global_\ndefaults:\n"
    (folder / "flat.yaml").write_text(
        f"{head}  - override /stage: finetune\n  - override /data: hmdb51\n"
        "  - override /crop@transform.crop: multiscale\n  - override /optim: adamw\n"
        "num_segments: 2\nepochs: 7\nmodule: {head: tsm}\n"
    )
    (folder / "based.yaml").write_text(f"{head}  - ucf101_finetune\n  - _self_\nepochs: 9\n")
    (folder / "mine.yaml").write_text(
        f"{head}  - ucf101_finetune\n  - _self_\n  - override /recipe: ${{recipe:mine}}\n"
    )
    (tmp_path / "recipe" / "finetune").mkdir(parents=True)
    (tmp_path / "recipe" / "finetune" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - finetune/ucf101_finetune\n  - _self_\nepochs: 11\n"
    )

    def found(*words: str) -> DictConfig:
        with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
            return compose("config", [*words, f"hydra.searchpath=[file://{tmp_path}]"])

    flat = found("+experiment=flat")
    assert (flat.num_segments, flat.epochs, flat.module.head) == (2, 7, "tsm")
    assert flat.transform.crop._target_.endswith("MultiScaleCrop")
    assert flat.optim.optimizer.lr == pytest.approx(3e-4)
    assert resolved(flat)
    for name, epochs in (("based", 9), ("mine", 11)):
        assert found(f"+experiment={name}").epochs == epochs
        assert found(f"+experiment={name}").test.num_segments == 25
        assert found(f"+experiment={name}", "stage=gradcam").data.dataset == "ucf101"
    assert found("+experiment=mine", "stage=pretrain").epochs == 400


def test_presets_touch_switches_only_and_experiments_none() -> None:
    for name in PRESETS:
        content = OmegaConf.load(CONF / "preset" / f"{name}.yaml")
        assert set(content) == {"switch"}
        assert set(content.switch) == {switch for switch, _, _ in DEVIATIONS}
    for name in EXPERIMENTS:
        assert "switch" not in OmegaConf.load(CONF / "experiment" / f"{name}.yaml")


@pytest.mark.parametrize(("switch", "paper", "released"), DEVIATIONS)
def test_each_deviation_is_one_switch(switch: str, paper: Any, released: Any) -> None:
    assert values()["switch"][switch] == paper
    assert values("+preset=paper")["switch"][switch] == paper
    assert values("+preset=released")["switch"][switch] == released


def test_every_switch_arrives_where_it_acts() -> None:
    found = values("+preset=released", "+experiment=k400")
    objectives, sampler = found["objective"]["objectives"], found["data"]["samplers"]["tuples"]
    assert objectives["order"]["normalize"] == "frames"
    assert objectives["intra"]["form"] == "pairwise"
    for name in ("inter", "video"):
        assert objectives[name]["queue_init"] == "uniform"
        assert objectives[name]["own_mask"] == "none"
    assert found["module"]["batches"] == found["module"]["encoders"]["key"]["batches"] == "request"
    assert found["data"]["batch_size"] == 256
    assert (sampler["segments"], sampler["draws"], sampler["exclude_reversal"]) == (
        "floor",
        "without_replacement",
        True,
    )
    assert found["data"]["eval_transform"]["stretch"] == [256, 340]
    for experiment, draws in (("sthv2_tsn", "random"), ("sthv2_tsm", "centres")):
        of = ("+preset=released", f"+experiment={experiment}")
        assert values(*of)["test"]["draws"] == draws
    assert found["optim"]["scheduler"]["warmup_epochs"] == 5
    assert found["optim"]["scheduler"]["eta_min"] == 1e-6


def test_a_rate_arrives_wherever_clips_are_read() -> None:
    """Where a distance between frames does, there is a rate."""
    weights = ("ckpt=a.ckpt", "frames_per_clip=4", "frame_stride=1", "frame_rate=7.5")
    for stage in STAGES:
        found = dict(leaves(values(f"stage={stage}", "image_size=64", *weights)))
        distances = [key for key in found if key.split(".")[-1] in ("stride", "frame_stride")]
        assert distances
        for key in distances:
            if not key.startswith("backbone."):
                assert found[key.replace("stride", "rate")] == 7.5, key
    for path in (CONF / "objective").glob("*.yaml"):
        method = values(f"objective={path.stem}", "frame_stride=97", "frame_rate=7.5")
        samplers = method["objective"].get("samplers") or {}
        for name, sampler in samplers.items():
            if sampler.get("stride") == 97:
                assert sampler["rate"] == 7.5, (path.stem, name)
    for wrong in ("0", "fast", "true"):
        with pytest.raises(UserError, match=r"frame_rate=.* must be frames per second, above 0"):
            resolved(composed(f"frame_rate={wrong}"))


def test_the_released_stretch_is_that_of_kinetics_alone() -> None:
    """Section 6: snippets of localisation are cut out of frames of their own shape."""
    of = ("+preset=released", "ckpt=a.ckpt", "data.root=/x")
    assert values("stage=linear_probe", *of)["features"]["transform"]["stretch"] == [256, 340]
    for stage in (("stage=features", "features=snippets"), ("stage=localize", "init=a.ckpt")):
        transform = values(*stage, *of)["features"]["transform"]
        assert (transform["size"], transform["resize"]) == (256, 256)
        assert transform["stretch"] is None
    suite = values("+suite=frozen", "+preset=released", "ckpt=a.ckpt")["suite"]
    for name, row in suite.items():
        stretched = "k400" in name
        for one in (row["run"], row["untrained"]) if row else ():
            assert ("features.transform.stretch" in one["changes"]) != stretched


def test_the_paper_s_localisation_is_of_the_classifier_s_scores() -> None:
    row = values("+suite=paper", "ckpt=a.ckpt")["suite"]["activitynet_localize"]
    for one in (row["run"], row["untrained"]):
        assert one["set"]["features"]["layer"] == "classifier"


def test_k400_is_the_paper_s_recipe() -> None:
    """Section 5 of the method, value by value."""
    found = values("+experiment=k400")
    optimizer, transform = found["optim"]["optimizer"], found["data"]["transform"]
    assert found["backbone"]["name"] == "resnet50"
    assert found["init"] == "required"
    assert (found["batch_size"], found["epochs"], found["num_segments"]) == (512, 400, 3)
    assert optimizer["_target_"] == "torch.optim.SGD"
    assert optimizer["lr"] == pytest.approx(0.2)
    assert (optimizer["momentum"], optimizer["weight_decay"]) == (0.9, 1e-4)
    assert found["optim"]["scheduler"]["multiplier"] == 100
    assert found["module"]["encoders"]["key"]["momentum"] == 0.999
    for objective in found["objective"]["objectives"].values():
        assert objective["embedding_dim"] == 128
        assert objective.get("temperature", 0.1) == 0.1
        assert objective.get("queue_size", 131072) == 131072
    assert found["objective"]["weights"] == dict.fromkeys(("inter", "intra", "video", "order"), 1.0)
    assert {key: value for key, value in transform.items() if key != "_target_"} == {
        "size": 224,
        "scale": [0.2, 1.0],
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
        "jitter_p": 0.8,
        "gray_p": 0.2,
        "blur_p": 0.5,
        "blur_sigma": [0.1, 2.0],
        "flip_p": 0.5,
    }
    assert found["data"]["eval_transform"]["size"] == 224
    assert found["data"]["eval_transform"]["resize"] == 256
    released = values("+preset=released", "+experiment=k400")
    assert released["optim"]["optimizer"]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("method", "rate", "batch", "epochs", "queue", "dim", "temperature"),
    [
        ("moco", 0.03, 256, 200, 65536, 128, 0.2),
        ("seco", 0.2, 512, 400, 131072, 128, 0.1),
        ("vince", 0.03, 64, 92, 65536, 64, 0.07),
    ],
)
def test_published_recipes_of_methods_of_frames(
    method: str, rate: float, batch: int, epochs: int, queue: int, dim: int, temperature: float
) -> None:
    found = values(f"objective={method}")
    optimizer, transform = found["optim"]["optimizer"], found["data"]["transform"]
    assert optimizer["lr"] == pytest.approx(rate)
    assert (optimizer["momentum"], optimizer["weight_decay"]) == (0.9, 1e-4)
    assert (found["batch_size"], found["epochs"]) == (batch, epochs)
    assert found["objective"]["encoders"]["key"]["momentum"] == 0.999
    assert found["objective"]["encoders"]["key"]["batches"] == (
        "request" if method == "seco" else "all"
    )
    for objective in found["objective"]["objectives"].values():
        assert objective["embedding_dim"] == dim
        assert objective.get("temperature", temperature) == temperature
        assert objective.get("queue_size", queue) == queue
        assert objective.get("own_mask", "none") == "none"
    vince = method == "vince"
    assert (transform["hue"], transform["jitter_p"], transform["blur_p"]) == (
        (0.2, 1.0, 0.0) if vince else (0.1, 0.8, 0.5)
    )
    assert (transform["gray_p"], transform["flip_p"], transform["scale"]) == (0.2, 0.5, [0.2, 1.0])


def test_learning_rate_follows_the_batch() -> None:
    assert values("batch_size=1024")["optim"]["optimizer"]["lr"] == pytest.approx(0.4)


SMALL = ("queue_size=64", "trainer=cpu", "image_size=32", "init=none", "batch_size=4")


@pytest.mark.parametrize("experiment", PRETRAINING)
@pytest.mark.parametrize("preset", PRESETS)
def test_experiments_build(
    preset: str, experiment: str, video_folder: Path, tmp_path: Path
) -> None:
    where = (f"data.root={video_folder}", f"data.cache_dir={tmp_path}", f"run_dir={tmp_path}/run")
    names = (f"+experiment={experiment}", f"+preset={preset}")
    videos = ("data.dataset=null", "data.holdout=0.34")
    cfg = composed(*names, *videos, *SMALL, *where)
    assert resolved(cfg)
    stage = instantiate(cfg.stage.run)
    assert isinstance(stage.keywords["module"], PretrainModule)
    assert isinstance(stage.keywords["data"], VideoDataModule)
    assert set(stage.keywords["callbacks"]) == set(cfg.callbacks)
    trainer = stage.keywords["trainer"]()
    length = {"epochs": cfg.epochs or -1, "steps": cfg.steps or -1}  # -1: no such limit
    assert {"epochs": trainer.max_epochs, "steps": trainer.max_steps} == length
    # Plain values arrive, nothing of OmegaConf.
    assert type(stage.keywords["data"]._samplers) is dict


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "objective"], ids=str)
def test_ablations_of_losses_and_segments_build(path: Path) -> None:
    network = "slow_r50" if path.stem == "vthcl" else "tiny"  # it reads layers
    for segments in (1, 2, 3, 5, 7):
        small = (f"backbone={network}", "backbone.width=4", "queue_size=64")
        small = (*small, f"num_segments={segments}")
        cfg = composed(f"objective={path.stem}", *small)
        needs_two = [
            n for n, o in cfg.objective.objectives.items() if "TemporalOrder" in o._target_
        ]
        expected = set(cfg.objective.weights) - set(needs_two if segments == 1 else ())
        if expected:
            module = instantiate(cfg.stage.run.module, _convert_="all")
            assert set(module.objectives) == expected
        else:
            with pytest.raises(InstantiationException) as caught:
                instantiate(cfg.stage.run.module, _convert_="all")
            assert isinstance(caught.value.__cause__, UserError)


def test_added_losses_leave_those_of_a_method_as_they_are() -> None:
    paths = {path.stem for path in FILES if path.parent.name == "objective"}
    for name in sorted(
        paths - {"video", "order", "vclr", *(p for p in paths if "inter_intra_" in p)}
    ):
        own = values(f"objective={name}")["objective"]
        added = values(f"objective={name}", "+add=video_order")["objective"]
        assert set(added["weights"]) == {*own["weights"], "video", "order"}, name
        for group in ("samplers", "encoders", "objectives", "weights"):
            for key, value in own.get(group, {}).items():
                assert added[group][key] == value, (name, group, key)
        views = [view for one in added["samplers"].values() for view in instantiate(one).views]
        assert len(set(views)) == len(views), (name, views)


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "objective"], ids=str)
def test_the_common_recipe_takes_the_place_of_any_other(path: Path) -> None:
    import torch

    cfg = composed(f"objective={path.stem}", "recipe=common")
    optimizer = instantiate(cfg.optim.optimizer)([torch.zeros(1, requires_grad=True)])
    scheduler = instantiate(cfg.optim.scheduler)(optimizer, steps_per_epoch=10, epochs=400)
    assert optimizer.param_groups[0]["lr"] * 100 == pytest.approx(0.2)  # in warm-up
    assert scheduler.get_last_lr() == [pytest.approx(0.002)]
    assert optimizer.defaults["weight_decay"] == 1e-4
    assert (cfg.batch_size, cfg.epochs, cfg.queue_size) == (512, 400, 131072)
    assert cfg.objective.transforms is None
    assert cfg.objective.share is None
    assert cfg.module.mean is None


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "backbone"], ids=str)
def test_backbones_build(path: Path, tmp_path: Path) -> None:
    weights = export_backbone(TinyBackbone(width=4), tmp_path / "tiny.backbone.safetensors")
    backbone = instantiate(composed(f"backbone={path.stem}", f"init={weights}").backbone)
    assert backbone.num_features > 0


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "optim"], ids=str)
def test_optimizers_build(path: Path) -> None:
    import torch

    optim = composed(f"optim={path.stem}", "batch_size=512").optim
    optimizer = instantiate(optim.optimizer)([torch.zeros(1, requires_grad=True)])
    base = optimizer.param_groups[0]["lr"]
    scheduler = instantiate(optim.scheduler)(optimizer, steps_per_epoch=10, epochs=20)
    warm_up = {"sgd": 100, "adamw": 100, "vince": 500, "cvrl": math.inf}
    first = base / warm_up.get(path.stem, 1)
    assert instantiate(composed(f"optim={path.stem}", "stage=finetune").stage.run.recipe)
    assert scheduler.get_last_lr() == [pytest.approx(first)]


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "logger"], ids=str)
def test_loggers_build(path: Path, tmp_path: Path) -> None:
    if path.stem in ("mlflow", "tensorboard"):
        pytest.importorskip(path.stem)
    cfg = composed(f"logger={path.stem}", f"run_dir={tmp_path}")
    assert "csv" in instantiate(cfg.logger)
