"""``stage=finetune`` by the command: what it leaves, what it says, and every mistake."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from vclr_lightning import train
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.evaluation_datasets import CentresDataset
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.frame_indices import clip_indices
from vclr_lightning.data.sampling.segment_sampler import SegmentSampler
from vclr_lightning.data.transforms import FinetuneTransform, PretrainTransform, ViewsTransform
from vclr_lightning.evaluation.encoders import frame_encoder
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.models import (
    TinyBackbone,
    TorchvisionResNet,
    export_backbone,
    load_backbone,
)
from vclr_lightning.modules import FinetuneModule
from vclr_lightning.stages.shared.finetuned import load_finetuned
from vclr_lightning.stages.shared.network import BackboneClassifier, network_of, pretrained_network

Main = Callable[..., SimpleNamespace]

COMMON = [
    *("stage=finetune", "backbone=tiny", "backbone.width=8", "backbone.stages=2", "image_size=32"),
    *("batch_size=4", "epochs=2", "num_segments=3", "trainer=cpu", "trainer.threads=1"),
    *("trainer.log_every_n_steps=1", "data.num_workers=0", "data.holdout=0.34"),
]


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    video_folder: Path,
    tmp_path: Path,
) -> Main:
    """``main(...)`` runs the stage in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(
        *arguments: object, root: Path = video_folder, common: Sequence[str] = COMMON
    ) -> SimpleNamespace:
        GlobalHydra.instance().clear()
        where = (f"data.root={root}", f"data.cache_dir={tmp_path}/cache")
        monkeypatch.setattr(sys, "argv", ["train", *common, *where, *map(str, arguments)])
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    return export_backbone(TinyBackbone(width=8, stages=2), path)


def test_all_layers_frozen_and_tested_again(main: Main, weights: Path, tmp_path: Path) -> None:
    start = load_backbone(weights).state_dict()
    for name, frozen in (("all", "false"), ("frozen", "true")):
        done = main(f"name={name}", f"init={weights}", f"module.frozen={frozen}", "optim.base_lr=3")
        assert done.code == 0, done.err
        assert "top-1" in done.out
        assert "initial weights" in done.err
        run = tmp_path / "outputs/finetune" / name
        log = (run / "train.log").read_text()
        assert "0.046875: the recipe's 3 for 256 videos a step, scaled to batch_size=4" in log
        learnt = load_backbone(run / "last.backbone.safetensors").state_dict()
        same = all(torch.equal(learnt[key], start[key]) for key in start)
        assert same == (frozen == "true")
        content = json.loads((run / "finetune.json").read_text())
        predictions = read(run / "predictions.csv")
        right = [line["right"] == "1" for line in predictions]
        assert len(predictions) == content["test"]["videos"] == 6
        assert content["accuracies"]["top1"] == pytest.approx(sum(right) / 6)
        result = json.loads((run / "result.json").read_text())
        assert result["top1"] == content["accuracies"]["top1"] == pytest.approx(result["val/top1"])
        assert {"mean_class", "best"} <= result.keys()
        page = (run / "report.html").read_text()
        assert "Finetuned classification" in page
        assert sum(int(line["videos"]) for line in read(run / "classes.csv")) == 6
        assert len(read(run / "confusion.csv")) == 3
        assert (run / "best.ckpt").exists()
        classifier = load_finetuned(run / "last.ckpt")
        assert classifier.class_names == ("grow", "left", "right")
        saved = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(v, saved[k]) for k, v in classifier.state_dict().items())
    with pytest.raises(UserError, match="holds no finetuned classifier"):
        load_finetuned(weights)
    # A complete run trains no more, and is tested as is now asked for.
    again = main("name=all", f"init={weights}", "optim.base_lr=3", "test.transform.crops=ten")
    assert again.code == 0, again.err
    content = json.loads((tmp_path / "outputs/finetune/all/finetune.json").read_text())
    assert content["settings"] == "TSN, 3 frames x ten-crop 32"


def test_tsm_with_workers_starts_from_a_checkpoint_of_its_own(main: Main, tmp_path: Path) -> None:
    first = main("name=first", "module.head=tsm", "epochs=1", "test=null", "data.num_workers=1")
    assert first.code == 0, first.err
    last = tmp_path / "outputs/finetune/first/last.ckpt"
    assert not (last.parent / "finetune.json").exists()
    second = main(
        *("name=second", f"init={last}", "epochs=1", "monitor=null", "callbacks.online=null")
    )
    assert second.code == 0, second.err
    state = torch.load(last, weights_only=True)["state_dict"]
    assert {"classifier.weight", "query_encoder.stem.weight"} <= state.keys()


def test_networks_of_clips(main: Main, tmp_path: Path) -> None:
    options = ["frames_per_clip=4", "frame_stride=2", "num_segments=2", "batch_size=2", "epochs=1"]
    options += ["trainer.limit_train_batches=1", "callbacks.checkpoint=null", "backbone=r3d18"]
    common = [word for word in COMMON if not word.startswith("backbone.")]
    done = main("name=clips", "callbacks.online=null", "monitor=null", *options, common=common)
    assert done.code == 0, done.err
    file = tmp_path / "outputs/finetune/clips/finetune.json"
    content = json.loads(file.read_text())
    assert content["settings"] == "TSN, 2 clips of 4 frames x centre 32"
    options[1] = "frame_rate=5"  # of videos of ten frames a second
    done = main("name=timed", "callbacks.online=null", "monitor=null", *options, common=common)
    assert done.code == 0, done.err
    timed = json.loads((file.parents[1] / "timed/finetune.json").read_text())
    assert timed["test"] == content["test"]


def test_what_is_left_out_is_said(main: Main, video_folder: Path, tmp_path: Path) -> None:
    """Lists with a class that only the test has; a test video that breaks later."""
    root = tmp_path / "videos"
    shutil.copytree(video_folder, root)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*_g*.mp4"))
    label = {"grow": 0, "left": 1, "right": 2}
    of = {name: label[name.split("/")[0]] for name in names}
    train_names = [n for n in names if "_g02" not in n and of[n] < 2]
    val_names = [n for n in names if "_g02" in n]
    (tmp_path / "train.txt").write_text("".join(f"{n} {of[n]}\n" for n in train_names))
    (tmp_path / "val.txt").write_text("".join(f"{n} {of[n]}\n" for n in val_names))
    lists = [f"data.train_list={tmp_path}/train.txt", f"data.val_list={tmp_path}/val.txt"]
    done = main("name=said", "epochs=1", *lists, root=root)
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "outputs/finetune/said/finetune.json").read_text())
    notes = content["notes"]
    assert any(
        "2 test videos are of classes without any training video: right." in n for n in notes
    )
    assert content["test"]["videos"] == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["data.classes=none"], "has a label, which finetuning needs"),
        (["num_classes=2"], "num_classes=2 is too few: the videos have labels of 3 classes"),
        (["test.transform.crops=four"], "crops='four' is unknown; take center, three, ten"),
        (["test.transform.size=400"], "is too small to cut size=400 out of"),
        (["module.head=tsp"], "head='tsp' is unknown; take tsn, tsm or gru"),
        (["init=nowhere.ckpt"], "there is no weights file at nowhere.ckpt"),
        (["init={weights}", "backbone.width=16"], "has shape"),
        (["stage.run.test_split=other"], "there are no videos of split 'other'"),
        (["data.holdout=0"], "no videos of a split val or test to test on"),
        (["data.holdout=0", "test=null"], "callbacks.online=null monitor=null"),
        (["+experiment=ucf101_finetune", "data=videos"], "init=none for random weights"),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, main: Main, weights: Path) -> None:
    done = main(*(word.format(weights=weights) for word in arguments))
    assert done.code == 2
    message = done.err[done.err.rindex("error: ") :]
    assert sentence in " ".join(message.split())
    assert "Traceback" not in done.err


def test_another_stage_s_checkpoint_is_no_continuation(main: Main, tmp_path: Path) -> None:
    first = main("name=first", "epochs=1", "test=null")
    assert first.code == 0, first.err
    last = tmp_path / "outputs/finetune/first/last.ckpt"
    state = torch.load(last, weights_only=True)
    state["metadata"]["config"]["stage"]["name"] = "pretrain"
    torch.save(state, tmp_path / "other.ckpt")
    done = main("name=second", f"ckpt={tmp_path}/other.ckpt")
    assert done.code == 2
    assert f"to start from its weights give init={tmp_path}/other.ckpt" in done.err


def test_one_crop_for_all_frames_of_a_video(video_folder: Path, tmp_path: Path) -> None:
    """A still video gives the same picture in every segment, but not to another draw."""
    table = ensure_manifest(video_folder, cache_dir=tmp_path, workers=1, show=False)

    class Still:
        size = 16

        def __call__(self, clip, rng):  # type: ignore[no-untyped-def]
            still = clip[0] * 0 + _ramp(clip[0])
            return FinetuneTransform(size=16, resize=24)([still] * len(clip), rng)

    data = VideoDataModule(
        train=table,
        samplers={"segments": SegmentSampler(num_segments=4)},
        transform=PretrainTransform(size=16),
        eval_transform=PretrainTransform(size=16),
        reader=PyAVReader(),
        batch_size=4,
        num_workers=0,
    )
    for share in (True, False):
        data.draw_with(
            samplers={"segments": SegmentSampler(num_segments=4)},
            transform=Still(),
            share={"segments": "video"} if share else None,
        )
        views = next(iter(data.train_dataloader()))["views"]["segments"]
        assert views.shape == (4, 4, 3, 1, 16, 16)
        assert all(torch.equal(video[0], video[i]) for video in views for i in range(4)) == share
        assert not torch.equal(views[0, 0], views[1, 0])


def _ramp(frame):  # type: ignore[no-untyped-def]
    import numpy as np

    height, width, _ = frame.shape
    plane = np.add.outer(3 * np.arange(height), 2 * np.arange(width)).astype(np.uint8)
    return np.repeat(plane[:, :, None], 3, axis=2)


def test_test_samples_are_the_centres(video_folder: Path, tmp_path: Path) -> None:
    table = ensure_manifest(video_folder, cache_dir=tmp_path, workers=1, show=False)
    transform = ViewsTransform(size=32, resize=40, crops="three")
    dataset = CentresDataset(
        manifest=table, reader=PyAVReader(), transform=transform, num_segments=5
    )
    sample = dataset[0]
    assert sample["views"].shape == (3, 5, 3, 1, 32, 32)
    with PyAVReader().open(table.path(0)) as video:
        count = video.num_frames
        frames = video.read([int((i + 0.5) * count / 5) for i in range(5)])
    for position, frame in enumerate(frames):
        assert torch.equal(sample["views"][:, position], transform([frame]))
    clips = CentresDataset(
        manifest=table,
        reader=PyAVReader(),
        transform=ViewsTransform(size=32, resize=40),
        num_segments=2,
        frames_per_clip=4,
        stride=3,
    )
    assert clips[0]["views"].shape == (1, 2, 3, 4, 32, 32)
    for count, expected in (
        (30, [[5, 8, 11, 14], [15, 18, 21, 24]]),
        (2, [[0, 1, 1, 1]] * 2),
    ):
        starts = clips._starts(count, max(1, count - 9), None, index=0)  # a clip spans ten frames
        found = clip_indices(starts, frames=4, stride=3, num_frames=count)
        assert found.tolist() == expected
    # At random, as the released code tests TSN on Something-Something: by seed and video.
    drawn = CentresDataset(
        manifest=table, reader=PyAVReader(), transform=transform, num_segments=5, seed=0
    )
    assert torch.equal(drawn[3]["views"], drawn[3]["views"])
    starts = [drawn._starts(30, 30, None, index=index) for index in range(200)]
    indices = torch.stack(list(map(torch.as_tensor, starts)))
    assert (indices // 6 == torch.arange(5)).all()
    assert all(len(column.unique()) == 6 for column in indices.T)


def test_scores_of_its_classes_are_a_layer_s_output(
    main: Main, weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = [word for word in COMMON if not word.startswith(("backbone", "epochs"))]
    taken = [f"init={weights}", "epochs=1", "test=null"]
    done = main(*taken, "name=tsn", common=common)
    assert done.code == 0, done.err
    ckpt = Path("outputs/finetune/tsn/last.ckpt")
    classifier = load_finetuned(ckpt)
    frames = torch.randint(256, (5, 3, 1, 32, 32), dtype=torch.uint8)
    network = pretrained_network(ckpt, layer="classifier")
    encode = frame_encoder(network, layer="classifier")
    views = frames[:, None, None]  # one frame each
    assert torch.allclose(encode(frames), classifier.scores(views), atol=1e-5)
    done = main(*taken, "module.head=tsm", "name=tsm", common=common)
    assert done.code == 0, done.err
    with pytest.raises(UserError, match="TSM classifier, which has no scores of single frames"):
        pretrained_network("outputs/finetune/tsm/last.ckpt", layer="classifier")
    for file in ("last.ckpt", "last.backbone.safetensors"):
        pretrained_network(f"outputs/finetune/tsm/{file}")
        assert "WARNING" in (said := capfd.readouterr().out)
        assert "was trained by TSM, with channels shifted between frames" in said
    with pytest.raises(UserError, match="no layer 'classifier'"):
        find_layer(pretrained_network(weights), "classifier")


def test_the_network_of_weights_that_do_not_say_is_a_resnet(weights: Path) -> None:
    assert isinstance(network_of(weights), TinyBackbone)
    torch.manual_seed(0)
    first = network_of("none", name="resnet18")
    torch.manual_seed(0)
    again = TorchvisionResNet(name="resnet18")
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert isinstance(network_of(weights, name="resnet18"), TorchvisionResNet)  # which was chosen


def test_a_checkpoint_of_lightning_s_own_says_how_its_classifier_is_built(tmp_path: Path) -> None:
    module = FinetuneModule(
        backbone=TinyBackbone(width=8, stages=2),
        num_classes=3,
        head="tsm",
        shift_divisions=4,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        class_names=("a", "b", "c"),
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader([0]))  # type: ignore[arg-type]
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    again = load_finetuned(tmp_path / "mine.ckpt")
    assert (again.head, again.class_names) == ("tsm", ("a", "b", "c"))
    views = torch.randint(256, (2, 1, 3, 3, 1, 32, 32), dtype=torch.uint8)
    assert torch.equal(again.scores(views), module.scores(views))
    # So does what is taken out of it.
    backbone = load_backbone(export_backbone(tmp_path / "mine.ckpt", tmp_path / "b.safetensors"))
    assert (backbone.pixel_mean, backbone.pixel_std) == ((0.5,) * 3, (0.2,) * 3)
    content = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    del content["metadata"]
    torch.save(content, tmp_path / "silent.ckpt")
    with pytest.raises(UserError, match="does not say whether its classifier is of TSN or TSM"):
        load_finetuned(tmp_path / "silent.ckpt")


def test_scores_are_of_pictures_as_the_network_was_trained_on_them() -> None:
    net = TinyBackbone(width=8)
    net.pixel_mean = net.pixel_std = (0.5, 0.5, 0.5)
    scored = BackboneClassifier(net, torch.nn.Linear(64, 3)).eval()
    frames = torch.randint(256, (2, 3, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = scored.classifier(net.eval()((frames[:, :, 0] / 255 - 0.5) / 0.5))
    torch.testing.assert_close(frame_encoder(scored)(frames), expected)
