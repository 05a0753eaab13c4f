"""The linear probe on real video files: its numbers, its files, its page, its command."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from sklearn.svm import LinearSVC

from vclr_lightning import train
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.evaluation.probes import SVMProbe
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.functional.folds import group_folds
from vclr_lightning.models import TinyBackbone
from vclr_lightning.stages.features.extractor import FeatureExtractor
from vclr_lightning.stages.linear_probe import linear_probe
from vclr_lightning.stages.shared.data import video_data


@pytest.fixture(scope="module")
def features(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return extractor(video_folder, tmp_path_factory.mktemp("cache"))


def extractor(folder: Path, cache: Path) -> FeatureExtractor:
    data = video_data(
        root=folder,
        cache_dir=cache,
        group_regex=r"(\w+_g\d+)_c",
        holdout=0.34,
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=32),
        eval_transform=EvalTransform(size=32, resize=36),
        batch_size=4,
        num_workers=0,
    )
    torch.manual_seed(0)
    return FeatureExtractor(
        data=data,
        weights="none",
        backbone=TinyBackbone(width=8, stages=2),
        num_frames=4,
        transform=EvalTransform(size=32, resize=36),
        cache_dir=cache,
        show=False,
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Edited:
    """The features of real videos, of which a test changes something."""

    def __init__(self, features: FeatureExtractor, **changes: Any) -> None:
        self.features, self.data, self.changes = features, features.data, changes

    def test_split(self, name: str | None) -> str:
        return self.features.test_split(name)

    def __call__(self, split: str) -> FeatureStore:
        store = FeatureStore.open(self.features(split).folder)
        for name, change in self.changes.get(split, {}).items():
            store.__dict__[name] = change(getattr(store, name))
        return store


def test_numbers_files_and_page(
    features: FeatureExtractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    returned = linear_probe(features=features, directory=tmp_path)
    known, unseen = features("train"), features("val")
    assert (returned["train/videos"], returned["test/videos"]) == (len(known), len(unseen))
    assert returned["chance/top1"] > 0
    values = {name: value for name, value in returned.items() if "/" not in name}
    theirs = LinearSVC(
        loss="squared_hinge", dual=False, fit_intercept=False, tol=1e-8, max_iter=10000
    ).fit(known.mean.double().numpy(), known.label.numpy())
    predicted = theirs.predict(unseen.mean.double().numpy())
    assert values["top1"] == (predicted == unseen.label.numpy()).mean()

    content = json.loads((tmp_path / "linear_probe.json").read_text())
    assert content["accuracies"] == values
    assert content["settings"] == "SVM, C = 1"
    assert content["train"] == {"split": "train", "videos": len(known)}
    lines = read(tmp_path / "predictions.csv")
    names = unseen.classes
    assert [line["path"] for line in lines] == list(unseen.paths)
    assert [line["label"] for line in lines] == [names[i] for i in unseen.label.tolist()]
    assert [line["predicted"] for line in lines] == [names[i] for i in predicted]
    for line in lines:
        assert line["class1"] == line["predicted"]
        assert float(line["score1"]) >= float(line["score2"]) >= float(line["score3"])
        assert line["right"] == str(int(line["label"] == line["predicted"]))
    singly = read(tmp_path / "scores.csv")
    assert [line["video"] for line in singly] == list(unseen.paths)
    assert [line["group"] for line in singly] == list(map(str, unseen.group_id.tolist()))
    assert [float(line["top1"]) for line in singly] == [float(line["right"]) for line in lines]
    assert returned["test/groups"] == len(unseen.group_id.unique()) < len(unseen)
    assert 0 <= returned["top1/low"] <= values["top1"] <= returned["top1/high"] <= 1
    confusion = read(tmp_path / "confusion.csv")
    assert [row["class"] for row in confusion] == list(names)
    assert sum(int(row[row["class"]]) for row in confusion) == values["top1"] * len(unseen)
    classes = read(tmp_path / "classes.csv")
    assert sum(int(row["videos"]) for row in classes) == len(unseen)

    page = (tmp_path / "report.html").read_text("utf-8")
    (matrix,) = re.findall(r'<svg.*?aria-label="Confusion matrix".*?</svg>', page, re.DOTALL)
    drawn = [int(number) for number in re.findall(r"<text[^>]*>(\d+)</text>", matrix)]
    assert sum(drawn) == len(unseen)
    for text in ("correct", "misclassified", "of the class's videos", "predicted class"):
        assert text in page
    network = f"TinyBackbone, its features: {unseen.num_features} numbers for each video"
    for text in (network, "short edge 36, centre crop 32 x 32"):
        assert text in page  # in words, no settings as they stand in the file
    assert "4 of each video, evenly spaced from the first to the last" in page
    assert "http" not in page.replace("http-equiv", "")
    out = capsys.readouterr().out
    for text in ("top-1", "mean class", "chance level", "SVM, C = 1", "grow", "report.html"):
        assert text in out


def test_search_is_shown_and_kept(
    features: FeatureExtractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear_probe(features=features, directory=tmp_path, probe=SVMProbe(costs=[0.1, 10.0], folds=3))
    search = json.loads((tmp_path / "linear_probe.json").read_text())["search"]
    assert [one["value"] for one in search["tried"]] == [0.1, 10.0]
    assert sum(search["held_out"]) == len(features("train"))
    assert "fold 3" in capsys.readouterr().out
    assert "Settings compared" in (tmp_path / "report.html").read_text("utf-8")


def test_a_class_missing_in_training_is_said(features: FeatureExtractor, tmp_path: Path) -> None:
    def without_left(label: torch.Tensor) -> torch.Tensor:
        return torch.where(label == 1, -1, label)

    edited = Edited(features, train={"label": without_left})
    linear_probe(features=edited, directory=tmp_path, probe="knn")  # type: ignore[arg-type]
    notes = json.loads((tmp_path / "linear_probe.json").read_text())["notes"]
    count = int((features("val").label == 1).sum())
    lost = f"{count} test videos of classes without any training video; counted as wrong"
    assert f"{lost}: left." in notes
    left = [row for row in read(tmp_path / "classes.csv") if row["class"] == "left"]
    assert [row["right"] for row in left] == ["0"]


def test_mistakes_are_one_sentence(features: FeatureExtractor, tmp_path: Path) -> None:
    def refuse(sentence: str, source: Any = features, **options: Any) -> None:
        with pytest.raises(UserError, match=sentence):
            linear_probe(features=source, directory=tmp_path, **options)

    def broken(mean: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(len(mean))[:, None] == 2, torch.nan, mean)

    path = features("train").paths[2]
    refuse("there is no probe 'svn'; there are svm, logistic, knn", probe="svn")
    refuse("that it is fitted to; give another test_split", test_split="train")
    refuse(
        f"features of 1 training videos are not finite, the first {path}",
        Edited(features, train={"mean": broken}),
    )
    refuse("has a label", Edited(features, val={"label": lambda label: 0 * label - 1}))
    refuse("are of one class", Edited(features, train={"label": lambda label: 0 * label}))


def test_labels_and_settings_are_looked_at_before_features_are_extracted(
    video_folder: Path, tmp_path: Path
) -> None:
    def refuse(sentence: str, folder: Path, **options: Any) -> None:
        with pytest.raises(UserError, match=sentence):
            linear_probe(
                features=extractor(folder, tmp_path / "cache"), directory=tmp_path, **options
            )
        assert not (tmp_path / "cache/features").exists()

    flat, one = tmp_path / "flat", tmp_path / "one/grow"
    for folder in (flat, one):
        folder.mkdir(parents=True)
        for file in sorted(video_folder.glob("grow/*.mp4")):
            shutil.copy(file, folder)
    refuse(r"none of the \d videos of split val has a label", flat)
    refuse(r"all \d training videos are of one class; a probe needs two or more", one.parent)
    refuse(
        r"form \d+ groups \(sources\), too few for folds=50",
        video_folder,
        probe=SVMProbe(costs=[1, 2], folds=50),
    )
    refuse("device=nowhere of the probe", video_folder, probe=SVMProbe(device="nowhere"))


def test_the_command(
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    indexed: Callable[[Path], str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))

    def run(*arguments: str) -> int:
        words = "stage=linear_probe ckpt=none backbone=tiny backbone.width=4 backbone.stages=1 "
        words += "image_size=32 features.num_frames=4 data.holdout=0.34 data.num_workers=0 "
        words += f"trainer=cpu trainer.threads=1 data.root={video_folder}"
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *words.split(), *arguments])
        try:
            train.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        return 0

    assert run("name=svm", "probe.costs=[0.1,1]", "probe.folds=2") == 0
    assert run("name=knn", "probe=knn", "probe.k=3") == 0
    assert run("name=logistic", "probe=logistic", "probe.epochs=5", "probe.folds=2") == 0
    for name in ("svm", "knn", "logistic"):
        folder = tmp_path / "outputs/linear_probe" / name
        assert json.loads((folder / "result.json").read_text()).keys() >= {"top1", "mean_class"}
        assert len(read(folder / "predictions.csv")) == 6
    assert "fold 2" in capfd.readouterr().out
    assert run("name=bad", "probe.k=3") == 2  # the SVM has no k
    assert "error: " in capfd.readouterr().err


def test_few_groups_are_cross_validated_over_all_videos(
    features: FeatureExtractor, tmp_path: Path
) -> None:
    """Three folds, of whole groups; each video is classified by a probe fitted to the others."""
    found = linear_probe(features=features, directory=tmp_path, folds=3)
    stores = [features(split) for split in ("train", "val")]
    x = torch.cat([store.mean for store in stores]).double().numpy()
    label = torch.cat([store.label for store in stores])
    group = torch.cat([store.group_id for store in stores])
    fold = group_folds(label, group, folds=3).numpy()
    assert all(len(set(fold[group.numpy() == one])) == 1 for one in set(group.tolist()))
    right = []
    for row in range(len(x)):
        others = fold != fold[row]
        theirs = LinearSVC(fit_intercept=False, dual=False, tol=1e-8, max_iter=10000)
        theirs.fit(x[others], label.numpy()[others])
        right.append(float(theirs.predict(x[row : row + 1])[0] == label[row]))
    lines = read(tmp_path / "scores_folds.csv")
    assert [line["video"] for line in lines] == [path for store in stores for path in store.paths]
    assert [float(line["top1_folds"]) for line in lines] == right
    assert found["top1_folds"] == pytest.approx(sum(right) / len(right))
    assert found["top1_folds/low"] <= found["top1_folds"] <= found["top1_folds/high"]
    notes = json.loads((tmp_path / "linear_probe.json").read_text())["notes"]
    assert any("top-1, folds is of all 18 videos of 9 groups" in note for note in notes)
    never = linear_probe(features=features, directory=tmp_path, few_groups=0)
    assert "top1_folds" not in never
    assert not (tmp_path / "scores_folds.csv").exists()
    search = linear_probe(
        features=features, directory=tmp_path, probe=SVMProbe(costs=[1.0, 2.0], folds=6), folds=2
    )
    assert "top1_folds" not in search
