"""The evaluate stage: what runs, what is left out, and what is written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vclr_lightning import __version__
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import screen
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.results import Table, write_table
from vclr_lightning.results.terminal import screen_table
from vclr_lightning.stages.evaluate import Evaluation, deferred, evaluate
from vclr_lightning.stages.shared.outcomes import Outcome, results_of


def _run(directory: Path) -> dict[str, float]:
    directory.mkdir(parents=True)
    (directory / "report.html").write_text('<h1>Pages & "quotes"</h1>')
    return {"r1": 0.5, "r5": 0.75, "secret": 1.0}


def _fail(directory: Path) -> dict[str, float]:
    raise UserError("the videos have no labels")


def _evaluation(**changes: Any) -> Evaluation:
    given = {"stage": "retrieval", "dataset": "mine", "run": _run, "measures": ["r1", "r5"]}
    return Evaluation(**(given | changes))


def test_numbers_of_all_and_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = evaluate(
        evaluations={
            "mine": _evaluation(paper={"r1": 70.6}),
            "other": _evaluation(needs={"data.roots.ucf101": None}),
            "off": None,
        },
        directory=tmp_path,
        ckpt="last.ckpt",
    )
    assert values == {"mine/r1": 0.5, "mine/r5": 0.75}
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["status"] for row in content["evaluations"]] == ["done", "not run"]
    assert content["version"] == __version__
    page = (tmp_path / "evaluation.html").read_text()
    assert "give data.roots.ucf101=..." in page
    assert 'srcdoc="&lt;h1&gt;Pages &amp; &#34;quotes&#34;&lt;/h1&gt;"' in page
    assert "70.6" in capsys.readouterr().out


def test_a_failure_loses_nothing_and_ends_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 of 2 evaluations failed; the first, bad: the videos"):
        evaluate(
            evaluations={"bad": _evaluation(run=_fail), "good": _evaluation()},
            directory=tmp_path,
            ckpt=None,
        )
    rows = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    assert rows[0]["status"] == "failed"
    assert rows[1]["values"] == {"r1": 0.5, "r5": 0.75}


def test_a_random_network_is_the_same_in_every_evaluation(tmp_path: Path) -> None:
    """Otherwise each would extract features of its own, and compare with another network."""

    def run(directory: Path) -> dict[str, float]:
        return {"r1": float(torch.rand(()))}

    values = evaluate(
        evaluations={name: _evaluation(run=run, untrained=run) for name in "ab"},
        directory=tmp_path,
        ckpt=None,
        untrained=True,
    )
    rows = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    drawn = [row[kind]["r1"] for row in rows for kind in ("values", "untrained")]
    assert drawn == 4 * [values["a/r1"]]


def test_nothing_at_hand_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 1 evaluations can be run; give root="):
        evaluate(
            evaluations={"a": _evaluation(needs={"root": None})}, directory=tmp_path, ckpt=None
        )
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate(evaluations={"a": None}, directory=tmp_path, ckpt=None)


def test_an_untrained_network_is_evaluated_on_request(tmp_path: Path) -> None:
    def untrained(directory: Path) -> dict[str, float]:
        assert directory.name == "a_untrained"
        return {"r1": 0.125}

    def row(asked: bool) -> dict[str, Any]:
        where = tmp_path / str(asked)
        one = _evaluation(untrained=untrained)
        evaluate(evaluations={"a": one}, directory=where, ckpt=None, untrained=asked)
        (row,) = json.loads((where / "evaluation.json").read_text())["evaluations"]
        return row

    assert row(False)["untrained"] == {}
    assert row(True)["untrained"] == {"r1": 0.125}


def test_deferred_parts_build_nothing_before_it_is_called() -> None:
    node = {"_target_": "builtins.dict", "_partial_": True, "a": {"_target_": "no.such.thing"}}
    build = deferred(node)
    with pytest.raises(Exception, match=r"no\.such"):
        build()


def test_a_fault_of_the_program_does_not_lose_what_is_done(tmp_path: Path) -> None:
    def broken(directory: Path) -> dict[str, float]:
        raise RuntimeError("out of memory\nmore")

    def stops(directory: Path) -> dict[str, float]:
        raise KeyboardInterrupt

    evaluations = {"a": _evaluation(), "b": _evaluation(run=broken), "c": _evaluation(run=stops)}
    with pytest.raises(KeyboardInterrupt):
        evaluate(evaluations=evaluations, directory=tmp_path, ckpt=None)
    rows = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert rows[1]["reason"] == "RuntimeError: out of memory"


def test_numbers_stay_where_only_the_untrained_network_fails(tmp_path: Path) -> None:
    one = _evaluation(untrained=_fail)
    with pytest.raises(UserError, match="1 of 1 evaluations failed; the first, a: untrained: the"):
        evaluate(evaluations={"a": one}, directory=tmp_path, ckpt=None, untrained=True)
    (row,) = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    assert row["values"] == {"r1": 0.5, "r5": 0.75}
    assert row["reason"] == "untrained: the videos have no labels"


def test_how_many_videos_of_how_many_and_chance(tmp_path: Path) -> None:
    def run(directory: Path) -> dict[str, float]:
        return {"r1": 0.5, "chance/r1": 0.25, "train/videos": 9, "test/videos": 18}

    one = _evaluation(run=run, videos={"train": 9537, "test": 3783})
    assert evaluate(evaluations={"a": one}, directory=tmp_path, ckpt=None) == {"a/r1": 0.5}
    page = (tmp_path / "evaluation.html").read_text()
    assert "train 9 of 9,537\ntest 18 of 3,783" in page
    assert "<td>25.0</td>" in page


def test_links_of_an_evaluation_s_page_lead_from_its_own_folder(tmp_path: Path) -> None:
    def run(directory: Path) -> dict[str, float]:
        directory.mkdir()
        (directory / "report.html").write_text('<title>A</title><a href="film.mp4">film</a>')
        return {"videos": 4.0}

    one = _evaluation(run=run, pictures=True)
    assert evaluate(evaluations={"my films": one}, directory=tmp_path, ckpt=None) == {}
    page = (tmp_path / "evaluation.html").read_text()
    assert "&lt;base href=&#34;my%20films/&#34; target=&#34;_blank&#34;&gt;" in page
    assert '<td class="words">pictures</td>' in page


DONE = Outcome(
    name="ucf101_retrieval",
    stage="retrieval",
    dataset="UCF101 split 1",
    values={"r1": 0.25, "r5": 0.5},
    untrained={"r1": 0.125},
    paper={"r1": 70.6},
)
NOT_RUN = Outcome(
    name="k400",
    stage="linear probe",
    dataset="Kinetics-400",
    status="not run",
    reason="give data.roots.k400=...",
    paper={"top1": 64.1},
)


def _table(*outcomes: Outcome) -> Table:
    table = results_of(outcomes, "last.ckpt").content[0]
    assert isinstance(table, Table)
    return table


def test_every_measure_has_a_line_with_its_references() -> None:
    table = _table(DONE, NOT_RUN)
    assert [head.name for head in table.heads][2:] == ["network", "untrained", "paper"]
    assert table.rows[0] == [
        "retrieval",
        "R@1",
        0.25,
        0.125,
        pytest.approx(0.706),
    ]
    assert table.rows[1] == ["UCF101 split 1", "R@5", 0.5, None, None]


def test_what_was_not_run_shows_the_paper_and_the_reason() -> None:
    table = _table(DONE, NOT_RUN)
    reason = "linear probe\nKinetics-400\nnot run: give data.roots.k400=..."
    assert table.rows[2] == [reason, "top-1", None, None, pytest.approx(0.641)]
    assert table.marks == ["", "", "soft"]
    console = screen(width=80, file=(text := io.StringIO()))
    console.print(screen_table(table))
    assert "64.1" in text.getvalue()


def _scored(right: list[float]) -> Any:
    def run(directory: Path) -> dict[str, float]:
        directory.mkdir()
        measures = {"r1": np.array(right)}
        names = [f"{i}.mp4" for i in range(len(right))]
        groups = [i // 2 for i in range(len(right))]
        scores = VideoScores(videos=names, groups=groups, measures=measures)
        write_table(scores.table(), directory / "scores.csv")
        found = {"r1": float(np.mean(right)), "test/videos": len(right)}
        return found | {"test/groups": scores.num_groups}

    return run


def test_intervals_over_groups_and_the_difference_from_the_untrained_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The groups, of two videos each, are drawn as wholes, for both networks the same."""
    right, random = [1.0] * 20, [0.0, 1.0] * 10
    names = {"better": random, "same": right}
    values = evaluate(
        evaluations={
            name: _evaluation(stage=name, run=_scored(right), untrained=_scored(other))
            for name, other in names.items()
        },
        directory=tmp_path,
        ckpt=None,
        untrained=True,
    )
    assert values["better/r1/difference"] == 0.5
    content = json.loads((tmp_path / "evaluation.json").read_text())
    better, same = content["evaluations"]
    assert better["difference"]["r1"] == [0.5, 0.5, 0.5]  # in every group the same
    assert better["interval"]["r1"] == [1, 1]
    assert same["difference"]["r1"] == [0, 0, 0]
    assert (better["videos"], better["groups"]) == ({"test": 20}, {"test": 10})
    (found,) = content["found"]
    assert found == (
        "Against the untrained network, on mine (20 test videos of 10 groups): above it by better "
        "(R@1); no difference by same (R@1)."
    )
    page = (tmp_path / "evaluation.html").read_text()
    shown = capsys.readouterr().out
    assert found in page
    assert all(len(line) <= 80 for line in shown.splitlines() if line[:1] in "┃│")
    for text in (page, shown):
        assert "+50.0" in text
        assert "[50, 50]" in text
        assert "in 10 groups" in text


def test_columns_without_numbers_are_left_out() -> None:
    plain = Outcome(name="a", stage="k-NN", dataset="mine", values={"top1": 0.5})
    assert [head.name for head in _table(plain).heads][2:] == ["network"]


def test_every_note_appears_once_with_its_evaluations() -> None:
    rows = [Outcome(name=n, stage="s", dataset="d", notes=["One."]) for n in "ab"]
    assert results_of(rows, "last.ckpt").notes == ["a, b: One."]


def test_outcomes_survive_json() -> None:
    content = json.loads(json.dumps(results_of([DONE, NOT_RUN], "c").record))
    assert content["evaluations"][0]["values"] == {"r1": 0.25, "r5": 0.5}
    assert content["evaluations"][1]["reason"] == "give data.roots.k400=..."
