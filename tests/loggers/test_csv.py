from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Callable
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


def _of_ten_rows(folder: Path) -> Path:
    logger = CSVLogger(directory=folder)
    for step in range(10):
        logger.log_metrics({"loss": step / 7, "r1": 0.5}, step=step)
    return logger.path


def _damages() -> dict[str, Callable[[bytes], bytes]]:
    return {
        "a tail of NUL bytes": lambda content: content + bytes(5000),
        "NUL bytes in place of a row": lambda content: content.replace(b"3,,0.42", bytes(7)),
        "half a line at the end": lambda content: content[:-9],
        "half a line that another was written behind": lambda c: c.replace(b"0.5\n5,", b"5,"),
        "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
        "line breaks of Windows": lambda content: content.replace(b"\n", b"\r\n"),
        "a line that is none of ours": lambda c: c.replace(b"\n4,", b"\n\xff\xfe?\n4,"),
    }


@pytest.mark.parametrize("damage", _damages())
def test_damage_costs_the_damaged_rows_alone(tmp_path: Path, damage: str) -> None:
    path = _of_ten_rows(tmp_path)
    whole = {row["step"]: row for row in _read(path)}
    path.write_bytes(_damages()[damage](path.read_bytes()))
    again = CSVLogger(directory=tmp_path)
    again.rewind(8)
    again.log_metrics({"loss": 8 / 7, "new": 1.0}, step=8)
    assert b"\0" not in path.read_bytes()
    header, *lines = path.read_text(encoding="ascii").splitlines()
    assert header == "step,epoch,loss,r1,new"
    assert {line.count(",") for line in lines} == {4}
    left = [(row["step"], row["loss"], row["r1"]) for row in _read(path)]
    lost = {"NUL bytes in place of a row": "3", "half a line that another was written behind": "45"}
    steps = [step for step in "01234567" if step not in lost.get(damage, "")]
    assert left[:-1] == [(step, whole[step]["loss"], whole[step]["r1"]) for step in steps]
    assert left[-1] == ("8", whole["8"]["loss"], "")


@pytest.mark.parametrize("content", [b"", bytes(300), b"ste", b"\xff\xfes\0t\0", b"a,b\n1,2\n"])
def test_a_file_that_is_no_table_is_kept_and_another_begun(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    logger = CSVLogger(directory=tmp_path)
    logger.rewind(5)
    logger.log_metrics({"loss": 1.0}, step=5)
    assert [row["step"] for row in _read(logger.path)] == ["5"]
    kept = tmp_path / "metrics.damaged.csv"
    assert kept.exists() == bool(content.strip(b"\0"))
    assert not kept.exists() or kept.read_bytes() == content


def test_what_is_right_is_neither_rewritten_nor_held_in_memory(tmp_path: Path) -> None:
    logger = CSVLogger(directory=tmp_path)
    logger.log_metrics({f"m{i}": i / 3 for i in range(30)}, step=0)
    row = logger.path.read_bytes().splitlines()[1].partition(b",")[2]
    with logger.path.open("ab") as file:
        file.writelines(b"%d,%s\n" % (step, row) for step in range(1, 20_000))
    inode, size = logger.path.stat().st_ino, logger.path.stat().st_size
    again = CSVLogger(directory=tmp_path)
    tracemalloc.start()
    try:
        again.rewind(19_990)
        again.log_metrics({"m0": 1.0}, step=19_990)
        assert again.path.stat().st_ino == inode
        again.log_metrics({"late": 1.0}, step=19_991)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < size / 20
    rows = _read(again.path)
    assert len(rows) == 19_992
    assert (rows[-1]["late"], rows[0]["late"], rows[0]["m7"]) == ("1.0", "", repr(7 / 3))
