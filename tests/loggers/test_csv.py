from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.loggers.csv import CSVLogger

NAMES = st.sampled_from(["loss", "r1", "train/lr", "a,b"])
LOGGED = st.lists(
    st.tuples(st.integers(0, 3), st.dictionaries(NAMES, st.floats(allow_nan=False), min_size=1)),
    max_size=12,
)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@settings(max_examples=25, deadline=None)
@given(calls=LOGGED, cut=st.integers(0, 20), stop=st.integers(0, 12))
def test_stopped_cut_back_and_repeated_it_is_the_same_file(
    calls: list[tuple[int, dict[str, float]]],
    cut: int,
    stop: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever was logged past the step of a checkpoint is logged again, once."""
    steps, step = [], 0
    for gap, values in calls:
        step += gap
        steps.append((step, values))
    whole, again = (tmp_path_factory.mktemp("csv") for _ in range(2))
    logger = CSVLogger(directory=whole)
    for at, values in steps:
        logger.log_metrics(values, step=at)
    first = CSVLogger(directory=again)
    for at, values in steps[:stop]:
        first.log_metrics(values, step=at)
    # A checkpoint's step is one whose rows before it are complete.
    cut = min(cut, steps[stop][0] if stop < len(steps) else step + 1)
    second = CSVLogger(directory=again)
    second.rewind(cut)
    for at, values in steps:
        if at >= cut:
            second.log_metrics(values, step=at)
    if not steps:
        return
    assert second.path.read_bytes() == logger.path.read_bytes()


def test_numbers_are_exact_and_rows_merge(tmp_path: Path) -> None:
    logger = CSVLogger(directory=tmp_path)
    logger.log_metrics({"a": 0.1 + 0.2}, step=4)
    logger.log_metrics({"b": 1e-30, "epoch": 2}, step=4)
    logger.log_metrics({"a": 1.0}, step=5)
    first, second = _read(logger.path)
    assert float(first["a"]) == 0.1 + 0.2
    assert (first["epoch"], float(first["b"])) == ("2", 1e-30)
    assert (second["step"], second["b"]) == ("5", "")


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    logger = CSVLogger(directory=tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    with logger.path.open("ab") as file:
        file.write(b"1,0,2.")
    again = CSVLogger(directory=tmp_path)
    again.log_metrics({"a": 3.0}, step=1)
    assert [row["a"] for row in _read(again.path)] == ["1.0", "3.0"]


def test_a_file_that_cannot_be_written_is_the_user_s_to_mend(tmp_path: Path) -> None:
    logger = CSVLogger(directory=tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.path.unlink()
    logger.path.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*metrics\.csv"):
        logger.log_metrics({"a": 1.0}, step=1)
