"""Pages about runs, and `vclr report`: read from their folders, damaged or not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml

from vclr_lightning import cli
from vclr_lightning.app.sweep_table import Job, record_job
from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import FrozenRow, FrozenTable, merge_tables
from vclr_lightning.results import Bars, Charts, Table
from vclr_lightning.results.curves import read_metrics
from vclr_lightning.stages.shared.run_comparison import differences
from vclr_lightning.stages.shared.run_folder import find_runs, read_run, run_status
from vclr_lightning.stages.shared.run_report import result_of_runs

MEASURES = ("r1", "r1_ordered", "probe", "probe_ordered")


def table(*seeds: float) -> FrozenTable:
    values = dict.fromkeys(MEASURES, seeds)
    chance = dict.fromkeys(MEASURES, (0.125,))
    rows = FrozenRow("VCLR", values), FrozenRow("chance", chance)
    return FrozenTable(rows, 80, 20, 3)


def test_tables_of_seeds_merge() -> None:
    merged = merge_tables([table(0.5), table(0.75), table(0.5)])
    assert merged.row("VCLR").values["r1"] == (0.5, 0.75, 0.5)
    assert merged.row("chance").values["r1"] == (0.125,)
    assert FrozenTable.from_dict(json.loads(json.dumps(merged.as_dict()))) == merged
    other = FrozenTable(merged.rows, 80, 21, 3)
    with pytest.raises(UserError, match="on different videos"):
        merge_tables([merged, other])
    with pytest.raises(UserError, match="no table"):
        FrozenTable.from_dict({"rows": 3})


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = []
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(
            f"step,epoch,train/loss,train/inter/loss\n0,0,9.5,4.5\n10,0,,{4 - seed}\n"
        )
        (folder / "config.yaml").write_text(
            f"seed: {seed}\nepochs: 4\ninit: null\nbackbone:\n  _target_: a.Tiny\n  width: 8\n"
        )
        held_out = {
            "instance_r1": {"VCLR": 0.5},
            "instance_chance": 0.05,
            "order_accuracy": 0.4,
            "order_chance": 0.25,
        }
        results = {"frozen": table(0.5 + seed / 10).as_dict(), "held_out": held_out}
        (folder / "results.json").write_text(json.dumps(results))
        folders.append(folder)
    return folders


def test_a_run_tells_what_it_left(runs: list[Path]) -> None:
    run = read_run(runs[1])
    assert run.settings == {"seed": "1", "epochs": "4", "backbone": "Tiny(width=8)"}
    assert [one.title for one in run.scalars][1] == "shuffled tuples recognised"
    assert {name: [*line] for name, line in run.charts[1].lines.items()} == {
        "loss": [(0.0, 4.5), (10.0, 3.0)]
    }
    (runs[1] / "results.json").unlink()
    (runs[1] / "config.yaml").unlink()
    bare = read_run(runs[1])
    assert (bare.frozen, bare.settings, bare.scalars) == (None, {}, [])


def test_a_page_says_what_training_has_changed(runs: list[Path]) -> None:
    values = "\n0,0,,,0.18,0.18,0.125\n10,0,9.0,4.0,0.3,,0.125\n"
    names = "val/knn_r1,start/val/knn_r1,val/knn_chance"
    (runs[0] / "metrics.csv").write_text(f"step,epoch,train/loss,train/inter/loss,{names}{values}")
    result = result_of_runs([read_run(runs[0])])
    (charts,) = [one for one in result.content if isinstance(one, Charts)]
    assert "label: 18% before training, 30% at the end (chance 12.5%)." in charts.text
    (knn,) = [one for one in charts.charts if one.before is not None]
    assert (knn.before, [*knn.lines["R@1"]]) == (0.18, [(0.0, 0.18), (10.0, 0.3)])


def test_runs_stand_side_by_side(runs: list[Path]) -> None:
    result = result_of_runs([read_run(folder) for folder in runs])
    assert result.provenance["seed"] == "0, 1"
    assert result.provenance["epochs"] == "4"
    by_kind = {type(one).__name__: one for one in result.content if getattr(one, "rows", True)}
    charts, bars = by_kind["Charts"], by_kind["Bars"]
    table = result.content[result.content.index(bars) + 1]
    assert isinstance(charts, Charts)
    assert list(charts.charts[1].lines) == ["seed0", "seed1"]
    assert isinstance(bars, Bars)
    assert bars.groups["R@1"]["VCLR"] == (0.5, 0.6)
    assert isinstance(table, Table)
    assert table.rows[0] == ["VCLR", *4 * ["55.0 ± 7.1"]]


def test_command(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(runs[0])]) == 0
    assert (runs[0] / "curves.html").exists()
    out = tmp_path / "seeds.html"
    assert cli.main(["report", *map(str, runs), "--out", str(out), "--title", "Two"]) == 0
    assert "<h1>Two</h1>" in out.read_text(encoding="utf-8")
    assert "55.0 ± 7.1" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / "empty")]) == 2
    assert "metrics.csv cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "step,x\n1,y\n", "\x00\xff"])
def test_other_tables_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=r"metrics\.csv"):
        read_metrics(file)


def test_damaged_lines_cost_themselves_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte order mark, Windows' line breaks, NUL bytes, a torn line, a cell that is no number."""
    file = tmp_path / "metrics.csv"
    torn = [b"2,\0\0\0", b"3,1.5", b"4,x,1", b"5,nan,1", b"6,,2", b"7,3."]
    rows = [b"\xef\xbb\xbfstep,a,b", b"0,1,", b"1,2,", *torn]
    file.write_bytes(b"\r\n".join(rows))
    curves = {name: [*curve] for name, curve in read_metrics(file).items()}
    assert curves == {"a": [(0.0, 1.0), (1.0, 2.0)], "b": [(5.0, 1.0), (6.0, 2.0)]}
    assert "4 damaged lines" in caplog.text


def test_a_long_run_is_read_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    names = [f"m{i}" for i in range(20)]
    with file.open("w") as sink:
        sink.write(",".join(["step", *names]) + "\n")
        sink.writelines(f"{i},{','.join([repr(i / 7)] * 20)}\n" for i in range(20_000))
    tracemalloc.start()
    try:
        curves = read_metrics(file)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [*curves] == names
    assert max([*curves["m7"]]) == (pytest.approx(19_999, abs=64), 19_999 / 7)
    assert held < 25 * 2**20  # where 400,000 pairs of floats are 45 MB


def test_damaged_results_are_named(runs: list[Path]) -> None:
    (runs[0] / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        read_run(runs[0])
    (runs[1] / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        read_run(runs[1])


LOG = "2026-11-29 01:00:00,000 INFO vclr_lightning 0.1.0 in outputs/a: train.py\n"


@pytest.mark.parametrize(
    ("text", "result", "found"),
    [
        ("INFO training ended after step 6\n", True, ("finished", "")),
        ("INFO training stopped after step 4: StopRequested: 15\n", False, ("stopped",)),
        (
            "INFO training stopped after step 4: StopRequested: SIGTERM\n",
            False,
            ("stopped", "SIGTERM"),
        ),
        ("INFO training stopped after step 4: KeyboardInterrupt:\n", False, ("stopped",)),
        ("INFO training stopped after step 4: ValueError: nan\n", False, ("failed",)),
        ("INFO epoch 1/2, step 3: train/loss 1\n", False, ("stopped",)),  # killed
        # An earlier end does not count where the run was continued, and killed.
        ("INFO training ended after step 6\n" + LOG + "INFO epoch 2\n", True, ("stopped",)),
    ],
)
def test_the_state_of_a_run(
    tmp_path: Path, text: str, result: bool, found: tuple[str, ...]
) -> None:
    (tmp_path / "train.log").write_text(LOG + text)
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,2\n7,1.5\n")
    if result:
        (tmp_path / "result.json").write_text(json.dumps({"best": 0.5}))
    status = run_status(tmp_path)
    assert status[: len(found)] == found
    assert (status[1] == "") is (status[0] == "finished")
    run = read_run(tmp_path)
    assert (run.step, run.values["train/loss"]) == (7, 1.5)
    assert ("best" in run.values) is (status[0] == "finished")


def test_a_run_that_a_process_holds_is_running(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(LOG + "INFO training ended after step 6\n")
    code = (
        "import sys, pathlib, time; from vclr_lightning.core.locks import in_use\n"
        "with in_use(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            status, holder = run_status(tmp_path)
            assert status == "running"
            assert str(child.pid) in holder
        finally:
            child.kill()
    assert run_status(tmp_path) == ("finished", "")  # its lock file is still there


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two seeds of two settings; one job failed before it logged anything, one is damaged."""
    folder = tmp_path / "outputs" / "pretrain" / "sweep"
    for number, (segments, seed) in enumerate([(2, 0), (2, 1), (3, 0), (3, 1)]):
        name = f"s={segments},seed={seed}"
        job = folder / name
        job.mkdir(parents=True)
        config = {
            "name": "sweep",
            "run_dir": str(job),
            "seed": seed,
            "data": {"seed": seed, "cache": str(job / "cache")},
            "num_segments": segments,
            "sampler": {"num_segments": segments},
            "lr": 0.1,
        }
        (job / "config.yaml").write_text(yaml.safe_dump(config))
        (job / "metrics.csv").write_text(f"step,train/loss\n0,2\n9,{1 + number}\n")
        values = {"best": 0.1 * number, "val/r1": 0.2, "val/r1_chance": 0.1}
        (job / "result.json").write_text(json.dumps(values))
        (job / "train.log").write_text(LOG + "INFO training ended after step 10\n")
        record_job(folder, Job(number=number, overrides=[], folder=str(job), status="done"))
    (folder / "s=3,seed=1" / "metrics.csv").write_text("damaged\n")
    gone = Job(number=9, overrides=[], folder=str(folder / "s=0"), status="failed", reason="no S")
    record_job(folder, gone)
    return folder


def test_a_sweep_is_given_as_one_folder(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [path.name for path in find_runs(sweep.parent)] == [
        *("s=2,seed=0", "s=2,seed=1", "s=3,seed=0", "s=3,seed=1")
    ]
    evaluation = tmp_path / "outputs" / "retrieval" / "mine"
    evaluation.mkdir(parents=True)
    weights = sweep / "s=2,seed=1" / "best.ckpt"
    (evaluation / "config.yaml").write_text(yaml.safe_dump({"ckpt": str(weights)}))
    (evaluation / "result.json").write_text(
        json.dumps({"r1": 0.5, "chance/r1": 0.25, "test/videos": 6})
    )
    assert cli.main(["report", str(sweep)]) == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if not line.startswith("wrote")) <= 80
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    assert ["s=2,seed=1", "finished", "10", "0.1", "0.2"] in rows
    assert ["s=0", "failed", "no S"] in rows
    assert any(row[:2] == ["s=3,seed=1", "unreadable"] for row in rows)
    spread = f"{np.mean([0, 0.1]):.4g} ± {np.std([0, 0.1], ddof=1):.2g}"
    assert ["num_segments=2", "2", spread, "0.2 ± 0"] in rows
    assert ["num_segments=3", "1", "0.2", "0.2"] in rows
    assert ["s=2,seed=1", "retrieval/mine", "R@1", "50.0", "25.0"] in rows
    page = (sweep / "curves.html").read_text()
    for target in re.findall(r'href="([^"#]+)"', page):
        assert (sweep / unquote(target)).exists(), target
    assert 'href="s%3D2%2Cseed%3D1/train.log"' in page


def test_runs_of_one_name_are_told_apart(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sweep / "s=2,seed=0", sweep.parent / "other" / "s=2,seed=0")
    single = sweep.parent / "single"
    shutil.copytree(sweep / "s=2,seed=0", single)
    (single / "profile").mkdir()
    (single / "profile" / "metrics.csv").touch()  # within a run, no run
    found = {path.relative_to(sweep.parent).as_posix() for path in find_runs(sweep.parent)}
    assert found >= {"single", "other/s=2,seed=0", "sweep/s=2,seed=0"}
    assert "single/profile" not in found
    folders = [sweep, sweep.parent / "other", sweep / "s=2,seed=1"]
    page = tmp_path / "page.html"
    assert cli.main(["report", *map(str, folders), "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    for name in ("sweep/s=2,seed=0", "other/s=2,seed=0", "s=3,seed=0"):
        assert re.search(rf"│ {name} +│", shown)
    assert len(re.findall(r"│ s=2,seed=1 +│", shown)) == 1  # given twice


def test_keys_that_follow_from_one_another_differ_once(sweep: Path) -> None:
    runs = [read_run(sweep / name) for name in ("s=2,seed=0", "s=2,seed=1", "s=3,seed=0")]
    assert {one.keys: one.values for one in differences(runs)} == {
        ("seed", "data.seed"): ("0", "1", "0"),
        ("num_segments", "sampler.num_segments"): ("2", "2", "3"),
    }
    result = result_of_runs(runs[:2])
    table = next(one for one in result.content if getattr(one, "title", "") == "What differs")
    assert isinstance(table, Table)
    assert table.rows == [["seed (and 1 more)", "0", "1"]]
