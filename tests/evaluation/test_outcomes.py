"""Outcomes of evaluations, as tables and as plain values."""

from __future__ import annotations

import io
import json

from rich.console import Console

from vclr_lightning.evaluation.outcomes import Outcome, Outcomes

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


def _text(outcomes: Outcomes) -> str:
    console = Console(width=160, file=(text := io.StringIO()))
    console.print(outcomes.table())
    return text.getvalue()


def test_every_measure_has_a_line_with_its_references() -> None:
    first, second = DONE.lines
    assert (first.value, first.untrained, first.paper) == ("25.0", "12.5", "70.6")
    assert (second.measure, second.value, second.untrained) == ("R@5", "50.0", "")


def test_what_was_not_run_shows_the_paper_and_the_reason() -> None:
    text = _text(Outcomes([DONE, NOT_RUN], "last.ckpt"))
    line = next(line for line in text.splitlines() if "Kinetics-400" in line)
    assert "64.1" in line
    assert "not run: give data.roots.k400=..." in line


def test_columns_without_numbers_are_left_out() -> None:
    plain = Outcome(name="a", stage="k-NN", dataset="mine", values={"top1": 0.5})
    assert Outcomes([plain], "c").columns == ["value"]
    assert Outcomes([plain, DONE], "c").columns == ["value", "untrained", "paper"]


def test_plain_values_survive_json() -> None:
    content = json.loads(json.dumps(Outcomes([DONE, NOT_RUN], "c").as_dict()))
    assert content["evaluations"][0]["values"] == {"r1": 0.25, "r5": 0.5}
    assert content["evaluations"][1]["reason"] == "give data.roots.k400=..."
