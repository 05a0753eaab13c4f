"""Text files of others, within limits; records of our own, with a checksum."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.app.sweep_table import Job, read_jobs, record_job
from vclr_lightning.core import reading
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import (
    parse_with_checksum,
    plain_values,
    read_json,
    read_numbers,
    read_record,
    read_rows,
    read_text,
    with_checksum,
    write_record,
)
from vclr_lightning.data.datasets.kinetics import read_kinetics
from vclr_lightning.data.datasets.mmaction2 import listing_of_mmaction2
from vclr_lightning.data.datasets.untrimmed import read_activitynet
from vclr_lightning.data.indexing.video_files import Found
from vclr_lightning.data.jobs.journal import FileJournal, FileResult
from vclr_lightning.data.localization.annotations import read_annotations
from vclr_lightning.data.localization.snippet_files import read_snippets
from vclr_lightning.data.readers.image_folder import frame_pattern
from vclr_lightning.stages.shared.run_folder import read_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 1]), st.data())
def test_a_record_is_what_was_written_or_damaged(
    content: dict[str, Any], indent: int | None, data: st.DataObject
) -> None:
    content.pop("checksum", None)
    text = with_checksum(json.dumps(content, indent=indent))
    assert parse_with_checksum(text, "a") == content
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii"))
    try:
        found = parse_with_checksum(text[:place] + other + text[place + 1 :], "a")
    except UserError:
        return
    found.pop("checksun", None)
    assert {k: v for k, v in found.items() if k in content} == content


def test_a_damaged_record_is_as_if_it_were_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "result.json"
    assert read_record(file) is None
    assert not caplog.text
    write_record(file, {"best": 0.25, "name": "a"})
    assert read_record(file) == {"best": 0.25, "name": "a"}
    assert read_numbers(file) == {"best": 0.25}
    file.write_text(file.read_text().replace("0.25", "0.75"))
    assert read_numbers(file) == {}
    assert "result.json is damaged" in caplog.text
    file.write_text('{"best": 0.5}')  # an earlier version's, without a checksum
    assert read_numbers(file) == {"best": 0.5}
    file.write_bytes(b'{"best": 0.5}\0\0')
    assert read_numbers(file) == {}


def test_lines_of_a_journal_that_are_damaged_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outcomes = [FileResult(f"{k}.mp4", k, 9, values={"num_frames": 100 + k}) for k in range(4)]
    with (journal := FileJournal(tmp_path / "j", {"root": "/"})):
        for outcome in outcomes:
            journal.add(outcome)
    lines = (tmp_path / "j").read_bytes().splitlines()
    lines[2] = lines[2].replace(b"101", b"111")
    lines[3] = b"[[" * 5000
    lines += [b"[]", b'{"path": 3, "size": 1, "mtime_ns": 1}', b'{"os": 1}', b"\xff\0"]
    (tmp_path / "j").write_bytes(b"\n".join(lines))
    assert list(journal.read().values()) == [outcomes[0], outcomes[3]]
    assert "left out 6 lines" in caplog.text


def test_a_damaged_job_of_a_sweep_is_left_out(tmp_path: Path) -> None:
    for number in range(3):
        record_job(tmp_path, Job(number=number, overrides=[], folder="a", status="done"))
    (tmp_path / ".jobs" / "0.json").write_text("{" * 9999)
    (tmp_path / ".jobs" / "1.json").write_text('{"number": 1}')
    assert [job.number for job in read_jobs(tmp_path)] == [2]


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "read", "said"),
    [
        ("activity_net.json", DEEP, read_annotations, "nested too deeply"),
        ("activity_net.json", '{"database": ' + DEEP, read_activitynet, "nested too deeply"),
        ("activity_net.json", '{"database": {"a": [1]}}', read_activitynet, "has the subset ''"),
        ("activity_net.json", '{"a": ' + "9" * 5000 + "}", read_annotations, "no JSON file"),
        ("activity_net.json", b'{"a": 1\0}', read_annotations, "is no text file"),
        (
            "k.csv",
            "youtube_id,time_start,time_end,split\n" + "a" * 200_000,
            read_kinetics,
            "line 2",
        ),
        ("k.csv", "youtube_id,time_start,time_end,split\na,inf,2,train", read_kinetics, "line 2"),
        ("a.csv", "1,2\n3," + "x" * 20_000, read_snippets, "is no table of features"),
        ("results.json", DEEP, lambda file: read_run(file.parent), "results.json is damaged"),
        ("results.json", '{"held_out": [1]}', lambda file: read_run(file.parent), "is damaged"),
        ("results.json", '{"frozen": 3}', lambda file: read_run(file.parent), "is damaged"),
    ],
)
def test_text_that_is_made_to_do_harm(
    name: str, content: str | bytes, read: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    whole_folder = read is read_activitynet
    with pytest.raises(UserError, match=said) as error:
        read(tmp_path if whole_folder else file)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_end_is_read_as_far_as_its_kind_may_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match="/dev/zero is larger than 1 MB"):
        read_text(Path("/dev/zero"), most=reading.MEGABYTE)


def test_cells_as_large_as_a_file_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n"' + "x\n" * 200_000)
    with pytest.raises(UserError, match=r"a.csv, line \d+, is no line of a CSV file: field larger"):
        list(read_rows(tmp_path / "a.csv"))


def test_classes_by_number_are_not_counted_without_end(tmp_path: Path) -> None:
    (tmp_path / "train_list.txt").write_text("a.mp4 999999999\n")
    with pytest.raises(UserError, match="class 999999999, but no label map"):
        listing_of_mmaction2(tmp_path, Found(["a.mp4"]))


@pytest.mark.parametrize(
    "template", ["{:999999999d}", "{0.__class__}", "{!r}", "{:05d}{:05d}", "{{}}"]
)
def test_a_template_of_frames_formats_a_number_and_nothing_else(template: str) -> None:
    with pytest.raises(UserError, match="must be a file name with one number"):
        frame_pattern(f"img_{template}.jpg")


@pytest.mark.parametrize(
    "array",
    [np.array([{}]), np.zeros(2, "i4,f4"), np.array(["a"]), np.zeros(2, np.complex64)],
)
def test_arrays_are_of_numbers(array: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"is no \.npy file of numbers"):
        read_snippets(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"(2, 3)", b"(10 ** 12, 3)"), (b"(2, 3)", b"(999999999999, 3)"), (b"(2, 3)", b"(2, -3)"),
     (b"'<f8'", b"'" + b"(" * 400), (b"{'descr'", b"{" * 90)],
)  # fmt: skip
def test_headers_of_arrays_promise_what_there_is(old: bytes, new: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    content = (tmp_path / "a.npy").read_bytes().replace(old, new)
    length = content.index(b"\n", 10) - 9
    (tmp_path / "a.npy").write_bytes(content[:8] + length.to_bytes(2, "little") + content[10:])
    with pytest.raises(UserError, match=r"is no \.npy file of numbers"):
        read_snippets(tmp_path / "a.npy")


def test_values_that_refer_to_each_other_are_too_many() -> None:
    content: dict[str, Any] = {}
    for _ in range(40):
        content = {"a": content, "b": content}
    with pytest.raises(UserError, match="too many"):
        plain_values(content, "a")
    content["a"] = content
    with pytest.raises(UserError, match="too deeply"):
        plain_values(content, "a")


def test_json_is_read_with_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-16")
    assert read_json(tmp_path / "a.json") == {"a": 1}
