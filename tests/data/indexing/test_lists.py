from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.lists import (
    ListLine,
    labels_of_numbers,
    listing_of_lists,
    parse_line,
    read_list,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.mp4 3", ListLine("a.mp4", None, 3)),
        ("a.mp4 120 3", ListLine("a.mp4", 120, 3)),
        ("a.mp4", ListLine("a.mp4", None, None)),
        ("  c/a.avi 2 \r", ListLine("c/a.avi", None, 2)),
        ("my dir/take 2.AVI 5", ListLine("my dir/take 2.AVI", None, 5)),
        ("v.mp4.mkv 1", ListLine("v.mp4.mkv", None, 1)),
        ("v.mp4 b.avi 1", ListLine("v.mp4 b.avi", None, 1)),
        ("frames/v1 127 4", ListLine("frames/v1", 127, 4)),
        ("frames/v1 4", ListLine("frames/v1", None, 4)),
        ("frames/v1", ListLine("frames/v1", None, None)),
        ("frames/take 2\t127 4", ListLine("frames/take 2", 127, 4)),
        ("a.mp4 -1", ListLine("a.mp4", None, None)),
    ],
)
def test_forms_of_a_line(line: str, expected: ListLine) -> None:
    assert parse_line(line) == expected


@pytest.mark.parametrize("line", ["a.mp4 jump", "a.mp4 1 2 3", "a.mp4 1.5", "d\tx", "a.mp4 1,2"])
def test_other_forms_are_refused(line: str) -> None:
    with pytest.raises(UserError, match="expected `path label`"):
        parse_line(line)


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
paths = st.lists(words, min_size=1, max_size=3).map(" ".join).map(lambda path: path + ".mp4")


@given(paths, st.integers(0), st.none() | st.integers(0))
def test_what_is_written_is_read(path: str, label: int, frames: int | None) -> None:
    line = f"{path} {label}" if frames is None else f"{path} {frames} {label}"
    assert parse_line(line) == ListLine(path, frames, label)


def test_files_as_they_are_found(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    file.write_bytes("\ufeffa.avi 1 \r\n\r\nb é.avi 2\r\nc.avi 3".encode())
    assert [(n, line.path, line.label) for n, line in read_list(file)] == [
        (1, "a.avi", 1),
        (3, "b é.avi", 2),
        (4, "c.avi", 3),
    ]


def test_bad_list_files(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    with pytest.raises(UserError, match=r"cannot read .*l\.txt: No such file"):
        read_list(file)
    file.write_text("\n \n")
    with pytest.raises(UserError, match="names no videos"):
        read_list(file)
    file.write_text("a.mp4 0\nb.mp4 high jump\n")
    with pytest.raises(UserError, match=r"l\.txt, line 2: 'high jump' follows"):
        read_list(file)


def listing(tmp_path: Path, with_classes: bool = True, **lists: str):  # type: ignore[no-untyped-def]
    files = {}
    for split, text in lists.items():
        file = tmp_path / f"{split}.txt"
        file.write_text(text)
        files[split] = [file]
    return listing_of_lists(files, tmp_path / "videos", with_classes=with_classes)


def named(result) -> list[tuple[str, str, str | None]]:  # type: ignore[no-untyped-def]
    return [
        (e.split, e.path, result.classes[e.label] if e.label >= 0 else None) for e in result.entries
    ]


def test_numbers_take_folder_names_where_they_agree(tmp_path: Path) -> None:
    result = listing(
        tmp_path,
        train="Walk/a.avi 1\nRun/b.avi 2\n",
        val="Run/c.avi\nWalk/d.avi\nJump/e.avi\n",
    )
    assert result.classes == ("Walk", "Run")
    assert named(result) == [
        ("train", "Walk/a.avi", "Walk"),
        ("train", "Run/b.avi", "Run"),
        ("val", "Run/c.avi", "Run"),
        ("val", "Walk/d.avi", "Walk"),
        ("val", "Jump/e.avi", None),
    ]


def test_numbers_stay_numbers_where_folders_disagree(tmp_path: Path) -> None:
    result = listing(tmp_path, train="x/a.avi 10\nx/b.avi 2\ny/c.avi 10\n", val="x/d.avi\n")
    assert result.classes == ("2", "10")
    assert [entry.label for entry in result.entries] == [1, 0, 1, -1]


def test_flat_files_have_numbers(tmp_path: Path) -> None:
    assert listing(tmp_path, train="a.avi 0\nb.avi 1\n").classes == ("0", "1")


def test_folders_are_classes_where_no_list_has_numbers(tmp_path: Path) -> None:
    assert listing(tmp_path, train="x/a.avi\ny/b.avi\n").classes == ("x", "y")


def test_labels_unwanted(tmp_path: Path) -> None:
    result = listing(tmp_path, with_classes=False, train="x/a.avi 0\n")
    assert result.classes == ()
    assert result.entries[0].label == -1


def test_repeated_and_foreign_paths_are_rejected(tmp_path: Path) -> None:
    inside, outside = tmp_path / "videos" / "y.mp4", tmp_path / "z.mp4"
    result = listing(
        tmp_path,
        train=f"x/a.mp4 0\n./x/a.mp4 0\n{inside} 1\n{outside} 1\n../z.mp4 1\n",
        val="x/a.mp4 0\n",
    )
    assert [entry.path for entry in result.entries] == ["x/a.mp4", "y.mp4"]
    reasons = [(r.path, r.reason.split(" ")[0], r.reason.split(" ")[-1]) for r in result.rejected]
    assert reasons == [
        ("x/a.mp4", "listed", "train"),
        (str(outside), "lies", "root"),
        ("../z.mp4", "lies", "root"),
        ("x/a.mp4", "listed", "train"),
    ]


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(0, 3))
def test_consistent_numbers_lose_nothing(numbers: list[int], offset: int) -> None:
    folders = [f"class {number}" for number in numbers]
    classes, labels = labels_of_numbers([number + offset for number in numbers], folders)
    assert [classes[label] for label in labels] == folders
    assert classes == tuple(sorted(set(folders)))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]
)
def test_lists_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "l.txt"
    text = "\ufeff" * (encoding == "utf-16-le") + "caf\u00e9/a.mp4 0\r\nx/b.mp4 1\r\n"
    file.write_bytes(text.encode(encoding))
    assert [line.path for _, line in read_list(file)] == ["caf\u00e9/a.mp4", "x/b.mp4"]


def test_a_list_that_is_no_text_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    for content in ("a.mp4 0".encode("utf-16-be"), b"\0\x01\x02", b"\xff\xfea"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"l\.txt is no text file, .*UTF-8"):
            read_list(file)


def test_a_list_finds_names_as_the_disk_spells_them(tmp_path: Path) -> None:
    real = "cafe\u0301/e\u0301te\u0301.mp4"
    (tmp_path / "videos" / real).parent.mkdir(parents=True)
    (tmp_path / "videos" / real).touch()
    result = listing(tmp_path, train="caf\u00e9/\u00e9t\u00e9.mp4 0\n", val=f"{real} 0\nx.mp4 1\n")
    assert [entry.path for entry in result.entries] == [real, "x.mp4"]
    assert [one.reason.split(" by ")[0] for one in result.rejected] == ["listed again"]
    assert result.classes == ("0", "1")
