"""The retrieval stage on real video files: its numbers, its files, its page."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.evaluation.retrieval_result import Retrieval
from vclr_lightning.models import TinyBackbone
from vclr_lightning.stages.features.extractor import FeatureExtractor
from vclr_lightning.stages.retrieval.neighbour_pictures import choose
from vclr_lightning.stages.retrieval.stage import retrieval
from vclr_lightning.stages.shared.data import video_data


def extractor(folder: Path, cache: Path, **options: Any) -> FeatureExtractor:
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
        **options,
    )


@pytest.fixture(scope="module")
def features(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return extractor(video_folder, tmp_path_factory.mktemp("cache"))


def by_hand(features: FeatureExtractor, ks: tuple[int, ...]) -> dict[str, float]:
    train, test = features("train"), features("val")
    g, q = (s.mean.double().numpy() for s in (train, test))
    g, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (g, q))
    order = np.argsort(-(q @ g.T), axis=1, kind="stable")
    hits = train.label.numpy()[order] == test.label.numpy()[:, None]
    return {f"r{k}": float(hits[:, :k].any(axis=1).mean()) for k in ks}


class Structure(HTMLParser):
    """Checks that elements close in order, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_numbers_files_and_page(
    features: FeatureExtractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    returned = retrieval(features=features, directory=tmp_path, pictures=4, neighbours=3)
    train, test = features("train"), features("val")
    gallery = len(train)
    assert (returned["train/videos"], returned["test/videos"]) == (gallery, len(test))
    values = {name: value for name, value in returned.items() if "/" not in name}
    assert values == pytest.approx(by_hand(features, (1, 5, 10)))
    assert gallery < 20  # so R@20 and R@50 say nothing
    content = json.loads((tmp_path / "retrieval.json").read_text())
    assert content["recall"] == values
    assert returned["chance/r1"] == content["chance"]["r1"]
    assert 0 < content["chance"]["r1"] < content["chance"]["r5"] < 1
    assert content["gallery"] == {"split": "train", "videos": gallery}
    out = capsys.readouterr().out
    for text in ("R@1", "R@10", "chance level", "grow", "report.html"):
        assert text in out

    with (tmp_path / "retrieval.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["query"] for line in lines] == list(test.paths)
    assert {line["neighbour_1"] for line in lines} <= set(train.paths)
    for k in (1, 5, 10):
        found = [0 < int(line["first_hit"]) <= k for line in lines]
        assert np.mean(found) == pytest.approx(values[f"r{k}"])
    for line in lines:
        assert (line["class_1"] == line["class"]) == (line["first_hit"] == "1")
        assert float(line["similarity_1"]) >= float(line["similarity_2"])
    with (tmp_path / "retrieval_classes.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    present = sorted(set(test.label.tolist()))
    assert [row["class"] for row in classes] == [test.classes[label] for label in present]
    mean = sum(float(row["r1"]) * int(row["test_videos"]) for row in classes) / len(test)
    assert mean == pytest.approx(values["r1"], abs=1e-5)

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert len(structure.addresses) == 4 * (1 + 3)
    assert all(address.startswith("data:image/jpeg;base64,") for address in structure.addresses)
    assert not re.search(r"https?://|@import|url\(", page)
    shown = re.findall(r'<figure class="(right|wrong)".*?<i aria-label="(\w+)">(.)</i>', page, re.S)
    assert len(shown) == 4 * 3
    assert set(shown) <= {("right", "right", "✓"), ("wrong", "wrong", "✗")}
    for group in page.split('<div class="group">')[1:]:
        query = re.search(r"<b>(\w+)</b> <span>own class(?:: rank (\d+)| not found)", group)
        assert query
        marks = re.findall(r'class="(right|wrong)".*?<figcaption><b>(\w+)</b>', group, re.S)
        assert [kind == "right" for kind, _ in marks] == [name == query[1] for _, name in marks]
        if query[2] and int(query[2]) <= 3:
            assert marks[int(query[2]) - 1][0] == "right"
    assert "drawn with seed 0" in page
    assert not (tmp_path / "rejected.csv").exists()


def test_one_split_among_itself_leaves_groups_out(
    features: FeatureExtractor, tmp_path: Path
) -> None:
    """Two clips of the tests' videos are a group: neither finds itself nor the other."""
    values = retrieval(features=features, directory=tmp_path, test_split="train", pictures=0)
    with (tmp_path / "retrieval.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    group = re.compile(r"(\w+_g\d+)_c")
    for line in lines:
        own = group.search(line["query"])
        assert own
        for rank in range(1, 11):
            assert own[1] not in line[f"neighbour_{rank}"]
    assert values["r1"] < 1
    assert not (tmp_path / "report.html").exists()
    notes = json.loads((tmp_path / "retrieval.json").read_text())["notes"]
    assert notes[-1] == "Videos of the query's own group are no neighbours."
    found = retrieval(
        features=features,
        directory=tmp_path,
        test_split="train",
        leave_group_out=False,
        pictures=0,
    )
    assert found["r1"] == 1


def test_python_of_the_page_runs(features: FeatureExtractor) -> None:
    page = (Path(__file__).parents[2] / "docs/downstream.md").read_text()
    section = page[page.index("## Retrieval") :]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block
    namespace: dict[str, Any] = {"features": features}
    exec(compile(block[1], "docs/downstream.md", "exec"), namespace)
    measured = {name: float(value) for name, value in namespace["metric"].compute().items()}
    expected = {f"r{k}": share for k, share in namespace["found"].recall.items()}
    assert {name: measured[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("center", ["gallery", "each"])
def test_centred_before_the_search(features: FeatureExtractor, tmp_path: Path, center: str) -> None:
    returned = retrieval(features=features, directory=tmp_path, center=center, pictures=0)  # type: ignore[arg-type]
    train, test = features("train"), features("val")
    gallery, queries = (np.asarray(store.mean, dtype=np.longdouble) for store in (train, test))
    shift = queries if center == "each" else gallery
    queries = queries - shift.sum(axis=0) / len(shift)
    gallery = gallery - gallery.sum(axis=0) / len(gallery)
    labels = train.label.tolist()
    for k in (1, 5):
        hits = 0
        for query, label in zip(queries, test.label.tolist(), strict=True):
            cosines = [query @ row / np.sqrt((query @ query) * (row @ row)) for row in gallery]
            nearest = sorted(range(len(gallery)), key=lambda i: -cosines[i])[:k]
            hits += label in [labels[i] for i in nearest]
        assert returned[f"r{k}"] == hits / len(test)
    assert any("subtracted" in note or "centred" in note for note in returned.notes)


def test_faiss_finds_the_same(features: FeatureExtractor, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the optional faiss-cpu is not installed")
    exact, faiss = (
        retrieval(features=features, directory=tmp_path / backend, backend=backend, pictures=0)
        for backend in ("exact", "faiss")
    )
    assert exact == faiss
    files = [(tmp_path / b / "retrieval.csv").read_text() for b in ("exact", "faiss")]
    assert files[0] == files[1]  # to the last digit


def test_bad_videos_are_left_out_counted_and_listed(
    video_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged video, one that goes missing later, and a class that only the test videos have."""
    root = tmp_path / "videos"
    for split, kinds in (("train", ("grow", "left")), ("val", ("grow", "right"))):
        for kind in kinds:
            (root / split / kind).mkdir(parents=True)
            for clip in range(3):
                name = f"{kind}_g0{clip}_c00.mp4"
                (root / split / kind / name).write_bytes((video_folder / kind / name).read_bytes())
    found = extractor(root, tmp_path / "cache")
    (root / "train/left/left_g00_c00.mp4").write_bytes(b"damaged")
    with caplog.at_level("INFO"):
        values = retrieval(features=found, directory=tmp_path / "run", ks=(1, 5), pictures=0)
    assert values["r5"] == pytest.approx(0.5)
    notes = json.loads((tmp_path / "run/retrieval.json").read_text())["notes"]
    assert notes[0].startswith("1 training video cannot be read; left out, and listed")
    assert notes[1] == (
        "3 test videos of classes without any training video; counted as not found: right."
    )
    assert (values["train/videos"], values["train/left_out"]) == (5, 1)
    assert any("right" in record.message for record in caplog.records)
    with (tmp_path / "run/rejected.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in listed] == ["left_g00_c00.mp4"]

    (root / "train/grow/grow_g00_c00.mp4").write_bytes(b"gone")  # the features are there already
    retrieval(features=found, directory=tmp_path / "run", ks=(1, 5), pictures=6)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "shown without picture" in page
    assert "no picture" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "annoy"}, "backend=annoy must be exact or faiss"),
        ({"ks": []}, "ks="),
        ({"ks": [0]}, "ks="),
        ({"ks": [2.5]}, "ks=[2.5] must name one or more whole numbers"),
        ({"ks": 5}, "ks=5 must name one or more whole numbers"),
        ({"test_split": "dev"}, "no videos of split dev"),
        ({"train_split": "dev"}, "no videos of split 'dev'"),
        ({"backend": "faiss", "leave_group_out": True}, "backend=exact"),
        ({"pictures": -1}, "pictures=-1"),
        ({"device": "nowhere"}, "device=nowhere"),
        ({"center": "median"}, "center='median'"),
        ({"device": "cpu", "backend": "faiss"}, "device=cpu is for backend=exact"),
    ],
)
def test_mistakes(
    features: FeatureExtractor, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        retrieval(features=features, directory=tmp_path, **arguments)


def test_videos_without_labels(video_folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in sorted(video_folder.rglob("*.mp4"))[:6]:
        (flat / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"none of the 2 videos of split val has a label"):
        retrieval(features=extractor(flat, tmp_path / "cache"), directory=tmp_path / "run")
    assert not (tmp_path / "cache/features").exists()  # told before anything is extracted


def test_queries_are_drawn_from_many_classes_right_and_wrong() -> None:
    label = torch.arange(40) % 4
    found = torch.where(torch.arange(40) < 30, label, (label + 1) % 4)
    result = Retrieval(
        similarity=torch.ones(40, 1),
        position=found[:, None],
        query_label=label,
        gallery_label=torch.arange(4),
        ks=(1,),
        chance={1: 0.25},
    )
    right, wrong = choose(result, 8, seed=0)
    assert sorted(label[right].tolist()) == sorted(label[wrong].tolist()) == [0, 1, 2, 3]
    assert max(right) < 30 <= min(wrong)
    assert (right, wrong) == choose(result, 8, seed=0) != choose(result, 8, seed=1)
    right, wrong = choose(result, 36, seed=0)
    assert (len(right), len(wrong)) == (26, 10)
    assert len(set(right)) == 26
    right, wrong = choose(result, 100, seed=0)
    assert (len(right), len(wrong)) == (30, 10)


def test_from_a_checkpoint_by_the_command(
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    indexed: Callable[[Path], str],
) -> None:
    """Pretrain, then look up; the second time the features are there already."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from vclr_lightning import train

    def command(*arguments: str) -> str:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *arguments, f"data.root={video_folder}"])
        try:
            train.main()
        finally:
            HydraConfig.instance().cfg = None
        captured = capsys.readouterr()
        return captured.out + captured.err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    small = ["trainer=cpu", "image_size=32", "data.num_workers=0", "data.holdout=0.34"]
    network = ["backbone=tiny", "backbone.width=4", "backbone.stages=1"]
    rest = ["batch_size=4", "queue_size=16", "epochs=1", "callbacks.online=null", "monitor=null"]
    command(*small, *network, *rest)
    checkpoint = "outputs/pretrain/default/last.ckpt"
    look_up = [*small, "stage=retrieval", f"ckpt={checkpoint}", "name=r", "features.num_frames=4"]
    first = command(*look_up)
    folder = tmp_path / "outputs/retrieval/r"
    values = json.loads((folder / "result.json").read_text())
    assert {name for name in values if "/" not in name} == {"r1", "r5", "r10"}
    for name in ("report.html", "retrieval.csv", "retrieval_classes.csv", "retrieval.json"):
        assert (folder / name).is_file()
    with Image.open(folder / "neighbours.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50  # frames, not paper
    assert "R@10" in first
    assert "extracting" in first
    again = command(*look_up, "stage.run.pictures=0")
    assert "reusing" in again
    assert "extracting" not in again
    assert json.loads((folder / "result.json").read_text()) == values
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    with pytest.raises(SystemExit):
        command(*look_up, "logger=wandb")
    assert "error: logger=wandb needs W&B; give `pip install wandb`" in capsys.readouterr().err


def test_the_gallery_whitens_both_sides(features: FeatureExtractor, tmp_path: Path) -> None:
    found = retrieval(
        features=features, directory=tmp_path, ks=(1,), pictures=0, standardize=True, whiten=True
    )
    train, test = features("train"), features("val")
    g, q = (s.mean.double().numpy() for s in (train, test))
    spread = g.std(axis=0)
    spread[spread == 0] = np.inf
    g, q = (g - g.mean(axis=0)) / spread, (q - g.mean(axis=0)) / spread
    _, singular, axes = np.linalg.svd(g, full_matrices=False)
    variance = singular[singular > 1e-4] ** 2 / len(g)
    scale = np.sqrt(0.9 * variance + 0.1 * variance.mean())
    g, q = ((x @ axes[: len(scale)].T) / scale for x in (g, q))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (g, q)]
    nearest = train.label.numpy()[(unit[1] @ unit[0].T).argmax(axis=1)]
    assert found["r1"] == (nearest == test.label.numpy()).mean()
    notes = json.loads((tmp_path / "retrieval.json").read_text())["notes"]
    assert "Before the search, standardize=True and whiten=True by the gallery." in notes
