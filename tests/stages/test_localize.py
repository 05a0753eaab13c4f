"""``stage=localize`` by the command: on files of features, on videos, stopped and continued."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train
from vclr_lightning.data.localization.snippet_files import read_snippets
from vclr_lightning.data.synthetic import generate

Main = Callable[..., SimpleNamespace]

SMALL = [
    "trainer=cpu",
    "trainer.threads=1",
    "trainer.log_every_n_steps=1",
    "positions=20",
    "model.hidden_1d=16",
    "model.hidden_2d=8",
    "model.hidden_3d=16",
    "model.samples=8",
    "batch_size=4",
]
VIDEOS = 12


def command(*arguments: object) -> int:
    """Run the command in this process; returns its status."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["train", *map(str, arguments)]
    try:
        train.main()
    except SystemExit as exit:
        return int(exit.code or 0)
    finally:
        HydraConfig.instance().cfg = None
        sys.argv = before
    return 0


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Main:
    """``main(...)`` runs ``stage=localize`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: object) -> SimpleNamespace:
        code = command("stage=localize", *SMALL, *arguments)
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features that tell where an action is, with annotations, and some of them wrong."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "csv").mkdir()
    rng = np.random.default_rng(0)
    database: dict[str, Any] = {}
    for number in range(VIDEOS):
        start = rng.uniform(2, 10)
        end = start + rng.uniform(4, 8)
        rows = rng.standard_normal((20, 8)) * 0.1
        rows[int(start) : int(end)] += 1  # of 20 s
        np.savetxt(folder / f"csv/v_{number:02}.csv", rows, delimiter=",", header="x", comments="")
        database[f"{number:02}"] = {
            "duration": 20.0,
            "subset": "training" if number < VIDEOS - 4 else "validation",
            "annotations": [{"segment": [start, end], "label": "run"}],
        }
    (folder / "good.json").write_text(json.dumps({"database": database}))
    database["00"]["annotations"] += [{"segment": [9, 3], "label": "run"}]
    database["01"]["annotations"] = []
    database["11"]["annotations"] += [{"segment": [5, 33], "label": "run"}]
    database["10"]["annotations"] = []
    database["absent"] = database["00"] | {"annotations": []}
    database["gone"] = dict(database["09"])
    (folder / "wrong.json").write_text(json.dumps({"database": database}))
    return folder


def files(folder: Path, annotations: str = "good.json") -> list[str]:
    where = [f"snippets.folder={folder}/csv", f"annotations={folder}/{annotations}"]
    return ["snippets=files", *where]


def test_features_of_others(main: Main, published: Path, tmp_path: Path) -> None:
    size = ["model.hidden_1d=32", "model.hidden_2d=16", "model.hidden_3d=32"]
    learning = ["epochs=25", "module.optimizer.lr=0.005", "module.scheduler.milestones=[20]"]
    done = main(*files(published), *size, *learning, "name=a")
    assert done.code == 0, done.err
    run = tmp_path / "outputs/localize/a"
    values = json.loads((run / "result.json").read_text())
    assert values["ar10"] > 0.6  # the features say it
    assert values["ar1"] <= values["ar5"] <= values["ar10"] <= values["ar100"]
    assert "AR@100" in done.out
    submission = json.loads((run / "proposals.json").read_text())
    assert submission["version"] == "VERSION 1.3"
    assert set(submission["results"]) == {"08", "09", "10", "11"}
    for found in submission["results"].values():
        scores = [p["score"] for p in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= p["segment"][0] < p["segment"][1] <= 20 for p in found)
    page = (run / "report.html").read_text()
    assert "4 of 4 videos, drawn with seed 0" in page
    assert page.count("<svg") == 5
    assert not (run / "left_out.csv").exists()
    with (run / "metrics.csv").open() as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file)]
    assert rates[:40] == pytest.approx([5e-3] * 40)
    assert rates[-10:] == pytest.approx([5e-4] * 10)


def test_what_is_left_out_is_listed(main: Main, published: Path, tmp_path: Path) -> None:
    done = main(*files(published, "wrong.json"), "epochs=1", "name=a")
    assert done.code == 0, done.err
    run = tmp_path / "outputs/localize/a"
    with (run / "left_out.csv").open() as file:
        rows = {(row["video"], row["what"]) for row in csv.DictReader(file)}
    assert rows == {
        ("00", "annotation left out"),
        ("11", "annotation cut"),
        ("01", "video left out of training"),
        ("absent", "video left out of training"),
        ("10", "video left out of the measure"),
        ("gone", "video left out"),
    }
    assert "annotation cut: 1; the first, 11: 5 s to 33 s reaches past" in done.out
    assert "annotation left out: 1" in (run / "report.html").read_text()
    # Proposals are made for all, and measured where there is truth.
    assert len(json.loads((run / "proposals.json").read_text())["results"]) == 4
    assert json.loads((run / "localization.json").read_text())["videos"] == 3
    result = json.loads((run / "result.json").read_text())
    assert (result["test/videos"], result["test/left_out"]) == (3, 2)


def test_a_run_continues_as_if_it_had_never_stopped(
    main: Main, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*files(published), "epochs=4", "module.scheduler.milestones=[2]"]
    often = [f"callbacks.checkpoint.{key}" for key in ("every_n_steps=1", "min_minutes=0")]
    assert main(*arguments, *often, "name=whole").code == 0

    from vclr_lightning.modules.localization import LocalizationModule

    original = LocalizationModule.training_step

    def stopping(at: tuple[int, int]) -> Callable[..., Any]:
        def step(self: Any, batch: Any, batch_idx: int) -> Any:
            if (self.current_epoch, batch_idx) == at:
                raise KeyboardInterrupt
            return original(self, batch, batch_idx)

        return step

    for at in ((1, 1), (2, 0), (3, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(LocalizationModule, "training_step", stopping(at))
            assert main(*arguments, *often, "name=cut").code != 0
    assert main(*arguments, *often, "name=cut").code == 0
    one, two = (tmp_path / "outputs/localize" / name for name in ("whole", "cut"))
    states = [torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (one / "proposals.json").read_text() == (two / "proposals.json").read_text()
    rows = []
    for run in (one, two):
        with (run / "metrics.csv").open() as file:
            rows.append([row["train/loss"] for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    again = main(*arguments, *often, "name=cut")
    assert again.code == 0
    assert "is complete" in again.out


def test_untrimmed_videos(main: Main, tmp_path: Path) -> None:
    generate(tmp_path / "made", train=1, val=1, untrimmed=8, size=32, workers=1)
    root = tmp_path / "made/untrimmed"
    # The form of the official annotations, under their name: spans come with the videos.
    annotations = (root / "annotations.json").read_text()
    (root / "activity_net.v1-3.min.json").write_text(annotations)
    network = ["init=none", "backbone=tiny", "backbone.width=8", "backbone.stages=2"]
    size = ["features.every=4", "features.transform.size=32", "features.transform.resize=32"]
    videos = [f"data.root={root}", "data.num_workers=0"]
    official = ["data=activitynet", f"data.annotations={root}", "data.view=localization"]
    done = main(*network, *size, *official, *videos, "epochs=1", "name=spans")
    assert done.code == 0, done.err
    by_file = [f"annotations={root}/annotations.json", "data.holdout=0"]
    done = main(*network, *size, *by_file, *videos, "epochs=1", "name=file")
    assert done.code == 0, done.err
    one, two = (
        json.loads((tmp_path / f"outputs/localize/{name}/proposals.json").read_text())
        for name in ("spans", "file")
    )
    assert one["results"].keys() == two["results"].keys() == {"untrimmed_0003", "untrimmed_0007"}
    measured = json.loads((tmp_path / "outputs/localize/file/localization.json").read_text())
    assert 0 < measured["chance"]["ar1"] < measured["chance"]["ar100"] < 1
    result = json.loads((tmp_path / "outputs/localize/file/result.json").read_text())
    assert result["chance/auc"] == measured["chance"]["auc"]
    assert (result["train/videos"], result["test/videos"]) == (6, 2)
    (root / "more").mkdir()
    shutil.copy(root / "untrimmed_0001.mp4", root / "more/untrimmed_0000.mp4")
    twice = main(*network, *size, *by_file, *videos, "epochs=1", "name=twice")
    assert twice.code == 2
    assert "two files are called untrimmed_0000" in twice.err
    shutil.rmtree(root / "more")
    plain = main(*network, *size, *videos, "epochs=1", "name=none", "data.holdout=0")
    assert plain.code == 2
    assert "none of the videos has annotated spans" in plain.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["batch_size=9"], "fewer than one batch of batch_size=9; take batch_size=8 or less"),
        (["stage.run.test_split=never"], "no video of split never is annotated; there are"),
        (["stage.run.shown=0"], "shown=0 of the localisation must be 1 or more"),
        (["snippets.folder=/nowhere"], "snippets.folder=/nowhere does not exist"),
        (["annotations=null"], "give annotations=FILE"),
        (["annotations=/nowhere.json"], "/nowhere.json"),
    ],
)
def test_mistakes(main: Main, published: Path, arguments: list[str], sentence: str) -> None:
    done = main(*files(published), "epochs=1", "name=a", *arguments)
    assert done.code == 2
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_a_run_of_other_features_is_not_continued(
    main: Main, published: Path, tmp_path: Path
) -> None:
    assert main(*files(published), "epochs=1", "name=a").code == 0
    changed = next((published / "csv").iterdir())
    before = changed.read_text()
    try:
        changed.write_text(before.replace("1", "2"))
        done = main(*files(published), "epochs=1", "name=a")
    finally:
        changed.write_text(before)
    assert done.code == 2
    assert "other features or annotations" in done.err


def test_a_file_that_cannot_be_read_is_left_out(
    main: Main, published: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(published / "csv", folder)
    (folder / "v_00.csv").write_text("a,b\n1,not a number\n")
    done = main(
        "snippets=files",
        *(f"snippets.folder={folder}", f"annotations={published}/good.json", "epochs=1", "name=a"),
    )
    assert done.code == 0, done.err
    with (tmp_path / "outputs/localize/a/left_out.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["video"] == "00"
    assert "v_00.csv is no table of features" in row["reason"]
    for file in folder.iterdir():
        file.unlink()
    (folder / "other.npy").write_bytes(b"")
    none = main(
        "snippets=files",
        *(f"snippets.folder={folder}", f"annotations={published}/good.json", "name=none"),
    )
    assert none.code == 2
    assert f"the first, 00: it has no file in {folder}" in none.err
    assert (tmp_path / "outputs/localize/none/left_out.csv").is_file()


@pytest.mark.parametrize("heading", ["", "a,b,c\n", "0,1,2\n", "1,2,3\n"])
def test_a_table_with_and_without_a_heading(heading: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(heading + "0.5,1,2\n3,4,5\n")
    assert read_snippets(tmp_path / "a.csv").tolist() == [[0.5, 1, 2], [3, 4, 5]]
