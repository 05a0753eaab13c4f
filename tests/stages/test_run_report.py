"""Pages about runs, and `vclr report`: read from their folders, damaged or not."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from vclr_lightning import cli
from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import FrozenRow, FrozenTable, merge_tables
from vclr_lightning.results import Bars, Charts, Table
from vclr_lightning.results.curves import read_metrics
from vclr_lightning.stages.shared.run_report import read_run, result_of_runs

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


def test_runs_stand_side_by_side(runs: list[Path]) -> None:
    result = result_of_runs([read_run(folder) for folder in runs])
    assert result.provenance["seed"] == "0, 1"
    assert result.provenance["epochs"] == "4"
    bars, table, charts = result.content
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
    assert cli.main(["report", str(tmp_path)]) == 2
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
