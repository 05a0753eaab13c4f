"""``vclr predict``: what evaluation says of the same videos, and every mistake in a sentence."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from safetensors.torch import load_file

from vclr_lightning import cli, train
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.models import TinyBackbone, export_backbone

Predict = Callable[..., tuple[int, str, str]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def predict(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Predict:
    """``predict(...)`` runs the command in an empty folder; exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        quick = ("trainer=cpu", "trainer.threads=1", f"data.cache_dir={tmp_path}/cache")
        capfd.readouterr()
        code = cli.main(["predict", *map(str, words), *quick, "data.num_workers=0"])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def run_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, video_folder: Path) -> Any:
    def run(*words: object) -> None:
        GlobalHydra.instance().clear()
        common = ("trainer=cpu", "trainer.threads=1", "data.num_workers=0")
        where = (f"data.root={video_folder}", f"data.cache_dir={tmp_path}/cache")
        monkeypatch.setattr(sys, "argv", ["train", *common, *where, *map(str, words)])
        try:
            train.main()
        finally:
            HydraConfig.instance().cfg = None

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return export_backbone(TinyBackbone(width=8, stages=2), path)


def read(out: str) -> Any:
    return json.loads(out[out.index("{\n") :])  # after lines of the stage's logger, if it ran


def videos_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("head", "tested"),
    [("tsn", []), ("tsm", ["test.transform.crops=three", "test.num_segments=4"])],
)
def test_classes_are_those_of_the_test_of_finetuning(
    predict: Predict,
    run_stage: Any,
    tmp_path: Path,
    video_folder: Path,
    head: str,
    tested: list[str],
) -> None:
    run_stage(
        *("stage=finetune", "backbone=tiny", "backbone.width=8", "backbone.stages=2", "epochs=1"),
        *("image_size=32", "batch_size=4", "num_segments=3", "data.holdout=0.34", "monitor=null"),
        *("callbacks.online=null", f"module.head={head}", "optim.base_lr=5", "name=a", *tested),
    )
    run = tmp_path / "outputs/finetune/a"
    with (run / "predictions.csv").open(newline="") as file:
        expected = {row["path"]: row for row in csv.DictReader(file)}
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    code, out, err = predict(f"ckpt={run}/last.ckpt", video_folder, bad, "--json")
    assert code == 2
    assert f"1 of {len(videos_of(video_folder)) + 1} videos cannot be read: {bad}: " in err
    found = read(out)
    assert [one["path"] for one in found["rejected"]] == [str(bad)]
    assert [one["path"] for one in found["videos"]] == list(map(str, videos_of(video_folder)))
    seen = 0
    for one in found["videos"]:
        row = expected.get(str(Path(one["path"]).relative_to(video_folder)))
        if row is None:
            continue
        seen += 1
        names = [row[f"class{i}"] for i in (1, 2, 3)]
        scores = np.array([float(row[f"score{i}"]) for i in (1, 2, 3)])
        shares = scores if head == "tsm" else np.exp(scores) / np.exp(scores).sum()
        assert [c["class"] for c in one["classes"]] == names
        assert [c["probability"] for c in one["classes"]] == pytest.approx(shares, abs=1e-5)
    assert seen == len(expected) == 6


def frames_of(file: Path) -> torch.Tensor:
    """All frames, decoded by PyAV one after the other, resized and cropped, ``(n, 3, H, W)``."""
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    transform = EvalTransform(size=32, resize=37)
    return torch.cat([transform([f], np.random.default_rng(0)).movedim(1, 0) for f in frames])


@torch.no_grad()
def test_features_are_those_of_the_network(
    predict: Predict, weights: Path, tmp_path: Path, video_folder: Path
) -> None:
    from vclr_lightning.models import load_backbone

    files = videos_of(video_folder)[:2]
    net = load_backbone(weights)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    expected = [net((frames_of(f) / 255 - mean) / std).mean(0) for f in files]
    settings = ("image_size=32", "features.num_frames=1000")
    code, out, err = predict(weights, *files, *settings, "--features", "f.npy")
    assert code == 0, err
    assert "wrote f.npy" in out
    found = torch.from_numpy(np.load(tmp_path / "f.npy"))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-4)
    foreign = tmp_path / "foreign.pth"
    torch.save({f"encoder.{n}": t for n, t in net.state_dict().items()}, foreign)
    prefix = ("features.prefix=encoder.", "--features", "f.safetensors")
    code, _, err = predict(f"ckpt={foreign}", *files, *settings, *prefix)
    assert code == 0, err
    by_path = load_file(tmp_path / "f.safetensors")
    assert list(by_path) == sorted(map(str, files))
    for file, row in zip(files, found, strict=True):
        torch.testing.assert_close(by_path[str(file)], row)


def test_a_video_is_its_own_nearest_neighbour(
    predict: Predict, run_stage: Any, weights: Path, tmp_path: Path, video_folder: Path
) -> None:
    run_stage(
        *("stage=features", f"ckpt={weights}", "image_size=32", "features.num_frames=4"),
        *("features.folder=kept", "data.holdout=0.34"),
    )
    files = videos_of(video_folder)[::5]
    settings = (f"ckpt={weights}", *files, "image_size=32", "features.num_frames=4", "-k", "2")
    found: dict[str, list[Any]] = {}
    for where in ("kept", video_folder):
        code, out, err = predict(*settings, "--neighbours", where, "--json", "--out", "page")
        assert code == 0, err
        found[str(where)] = read(out)["videos"]
        for file, one in zip(files, found[str(where)], strict=True):
            first, second = one["neighbours"]
            assert Path(first["path"]) == file
            assert first["class"] == file.parent.name
            assert first["similarity"] == pytest.approx(1, abs=1e-5)
            assert second["similarity"] <= first["similarity"]
    values = [
        [n["similarity"] for one in some for n in one["neighbours"]] for some in found.values()
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    page = (tmp_path / "page/report.html").read_text()
    assert page.count("<img") >= 2 * len(files)
    with (tmp_path / "page/neighbours.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(files)
    code, _, err = predict(*settings[:-3], "--neighbours", "kept")  # 30 frames
    assert code == 2
    assert "holds features of other frames of a video (num_frames 4; now 30)" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["VIDEO"], "has no classifier; give --features FILE"),
        (["VIDEO", "--neighbours", "nowhere"], "--neighbours nowhere: there is no such file"),
        (["VIDEO", "--features", "f.csv"], r"must end in .npy or .safetensors"),
        (["VIDEO", "--features", "f.npy", "-k", "0"], "k=0 must be 1 or more"),
        (["VIDEO", "--features", "f.npy", "featurs.num_frames=3"], "featurs"),
        (["lost.mp4", "--features", "f.npy"], "lost.mp4: the file does not exist"),
        (["--features", "f.npy"], "no videos are named"),
        (["empty", "--features", "f.npy"], "there are no videos in empty"),
    ],
)
def test_mistakes_are_a_sentence(
    predict: Predict, weights: Path, video_folder: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    video = str(videos_of(video_folder)[0])
    given = [video if word == "VIDEO" else word for word in words]
    code, out, err = predict(f"ckpt={weights}", *given)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not out
