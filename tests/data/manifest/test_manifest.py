from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vclr_lightning.core.arrays import map_arrow, write_arrow
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest import (
    Info,
    Manifest,
    Row,
    changed_files,
    manifest_file,
    summarise,
    write_manifest,
)

CLASSES = ("run", "walk")


def rows() -> list[Row]:
    """Ten videos in no order: even ones train and labelled, 3 and 7 val and unlabelled."""
    made = []
    for k in (5, 0, 9, 3, 1, 7, 2, 8, 4, 6):
        val = k in (3, 7)
        made.append(
            Row(
                path=f"{CLASSES[k % 2]}/v{k}.mp4",
                group=f"source{k // 2}",
                split="val" if val else "train",
                label=-1 if val else k % 2,
                duration=float(k),
                num_frames=30 * k or None,
                exact=k in (1, 2),
                fps=30.0,
                width=320,
                height=240,
                codec="h264" if k else None,
                keyframe_interval=12,
                size=100 + k,
            )
        )
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "m.arrow", rows(), Info(root=tmp_path, classes=CLASSES))


def test_rows_come_back_sorted_by_split_and_path(file: Path) -> None:
    manifest = Manifest.load(file)
    expected = sorted(rows(), key=lambda row: (row.split, row.path))
    assert len(manifest) == 10
    for i, row in enumerate(expected):
        assert manifest.path(i) == file.parent / row.path
        assert manifest.name(i) == Path(row.path).stem
        assert manifest.label(i) == row.label
        assert manifest.video_id(i) == i
        assert manifest.num_frames(i) == (row.num_frames if row.exact else None)
        for other, candidate in enumerate(expected):
            same = manifest.group_id(i) == manifest.group_id(other)
            assert same == (row.group == candidate.group)
    assert manifest.labels.tolist() == [row.label for row in expected]
    assert manifest.labels.dtype == manifest.group_ids.dtype == manifest.video_ids.dtype == np.int64
    assert manifest.group_ids.tolist() == [manifest.group_id(i) for i in range(10)]
    assert manifest.splits == ("train", "val")
    assert manifest.classes == CLASSES
    assert manifest.num_classes == 2


def test_split_is_a_view_with_ids_of_the_full_manifest(file: Path) -> None:
    manifest = Manifest.load(file)
    val = manifest.split("val")
    assert [val.name(i) for i in range(len(val))] == ["v3", "v7"]
    assert val.video_ids.tolist() == [val.video_id(0), val.video_id(1)] == [8, 9]
    assert [manifest.name(i) for i in val.video_ids] == ["v3", "v7"]
    assert val.splits == ("val",)
    assert not val.has_labels
    assert manifest.split("train").has_labels
    assert not manifest.has_labels
    with pytest.raises(IndexError):
        val.path(2)
    with pytest.raises(IndexError):
        val.path(-1)


def test_views_of_views_select_among_the_selected(file: Path) -> None:
    train = Manifest.load(file).split("train")
    odd = train.select(train.labels == 1)
    assert [odd.name(i) for i in range(len(odd))] == ["v1", "v5", "v9"]
    assert odd.select(np.array([False, True, True])).name(1) == "v9"


def test_unknown_split_names_those_that_exist(file: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'test'; it has: train, val"):
        Manifest.load(file).split("test")


def test_pickle_is_small_and_restores_the_view(file: Path) -> None:
    val = Manifest.load(file).split("val")
    data = pickle.dumps(val)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.fingerprint == val.fingerprint
    assert [again.path(i) for i in range(2)] == [val.path(i) for i in range(2)]


def _read(manifest: Manifest) -> list[object]:
    return [
        (manifest.path(i), manifest.label(i), manifest.video_id(i)) for i in range(len(manifest))
    ]


def test_works_in_a_spawned_process(file: Path) -> None:
    val = Manifest.load(file).split("val")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read, (val,)) == _read(val)


def test_a_manifest_replaced_in_use_is_noticed(file: Path) -> None:
    data = pickle.dumps(Manifest.load(file))
    write_manifest(file, rows()[:5], Info(root=file.parent, classes=CLASSES))
    with pytest.raises(UserError, match="replaced by another while it was in use"):
        pickle.loads(data)


def test_columns_are_the_mapped_file_not_copies(tmp_path: Path) -> None:
    many = [Row(path=f"{k:06d}.mp4") for k in range(20_000)]
    file = write_manifest(tmp_path / "m.arrow", many, Info(root=tmp_path))
    before = pa.total_allocated_bytes()
    manifest = Manifest.load(file)
    assert [manifest.name(i) for i in (0, 19_999)] == ["000000", "019999"]
    assert pa.total_allocated_bytes() - before < 20_000
    assert len(pickle.dumps(manifest.select(np.arange(20_000) % 3 == 0))) < 20_000 / 4


def test_root_can_be_overridden_and_must_exist(file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    with pytest.raises(UserError, match="moved, which does not exist; give the folder"):
        Manifest.load(file, root=moved)
    assert Manifest.load(file, root=moved, check_root=False).root == moved
    moved.mkdir()
    manifest = Manifest.load(file, root=moved)
    assert manifest.split("val").path(0) == moved / "walk/v3.mp4"
    assert pickle.loads(pickle.dumps(manifest)).path(0).is_relative_to(moved)
    assert manifest.fingerprint == Manifest.load(file).fingerprint


def test_a_root_below_the_manifest_moves_with_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "videos").mkdir(parents=True)
    info = Info(root=tmp_path / "a" / "videos")
    write_manifest(tmp_path / "a" / "m.arrow", [Row(path="x.mp4")], info)
    (tmp_path / "a").rename(tmp_path / "b")
    assert Manifest.load(tmp_path / "b" / "m.arrow").path(0) == tmp_path / "b/videos/x.mp4"


def _fingerprint(folder: Path, rows: list[Row], classes: tuple[str, ...] = CLASSES) -> str:
    file = write_manifest(folder / "f.arrow", rows, Info(root=folder, classes=classes))
    return Manifest.load(file).fingerprint


def test_fingerprint_is_of_content_not_of_times(tmp_path: Path) -> None:
    from dataclasses import replace

    base = rows()
    same = _fingerprint(tmp_path, base)
    assert _fingerprint(tmp_path, base[::-1]) == same
    assert _fingerprint(tmp_path, [replace(r, mtime_ns=7, size=8, fps=9.0) for r in base]) == same
    for change in (
        {"path": "walk/x.mp4"},
        {"name": "x"},
        {"group": "x"},
        {"split": "test"},
        {"label": -1},
    ):
        assert _fingerprint(tmp_path, [replace(base[0], **change), *base[1:]]) != same
    assert _fingerprint(tmp_path, base, ("run", "stroll")) != same


def test_fingerprint_of_views(file: Path) -> None:
    manifest = Manifest.load(file)
    parts = {m.fingerprint for m in (manifest, manifest.split("train"), manifest.split("val"))}
    assert len(parts) == 3
    assert manifest.select(np.ones(10, dtype=bool)).fingerprint == manifest.fingerprint


def test_changed_files_are_noticed(tmp_path: Path) -> None:
    found = []
    for name in "abcd":
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(b"12345")
        stat = path.stat()
        found.append(Row(path=path.name, size=stat.st_size, mtime_ns=stat.st_mtime_ns))
    manifest = Manifest.load(write_manifest(tmp_path / "m.arrow", found, Info(root=tmp_path)))
    assert changed_files(manifest) == {}
    (tmp_path / "b.mp4").write_bytes(b"1")
    (tmp_path / "c.mp4").unlink()
    os.utime(tmp_path / "d.mp4", (1, 1))
    assert changed_files(manifest) == {"b.mp4": "size", "c.mp4": "missing", "d.mp4": "time"}


def test_summary_counts(file: Path) -> None:
    summary = summarise(Manifest.load(file))
    assert (summary.videos, summary.classes, summary.labelled, summary.groups) == (10, 2, 8, 5)
    assert summary.splits == {"train": 8, "val": 2}
    assert summary.hours == pytest.approx(sum(range(10)) / 3600)
    assert summary.bytes == 1045
    assert summary.exact == 2
    assert summary.frames == (30, 150, 270)
    assert summary.sizes == {"320x240": 10}
    assert summary.codecs == {"h264": 9, "unknown": 1}
    assert summary.keyframes == (12, 12, 12)
    assert summarise(Manifest.load(file).split("val")).splits == {"val": 2}


def test_summary_of_unprobed_rows(tmp_path: Path) -> None:
    file = write_manifest(tmp_path / "m.arrow", [Row(path="a.mp4")], Info(root=tmp_path))
    summary = summarise(Manifest.load(file))
    assert summary.frames is None
    assert summary.hours is None
    assert summary.keyframes is None
    assert summary.sizes == {"unknown": 1}
    assert summary.codecs == {"unknown": 1}


def test_bad_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no manifest"):
        Manifest.load(tmp_path / "none.arrow")
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / "manifest.arrow").touch()
    with pytest.raises(UserError, match=r"is a folder; give the manifest in it, .*prepared"):
        Manifest.load(folder)
    text = tmp_path / "text.arrow"
    text.write_text("not arrow")
    with pytest.raises(UserError, match="is no manifest"):
        Manifest.load(text)
    other = tmp_path / "other.arrow"
    table = pa.table({"a": [1]})
    with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="Arrow file but no manifest"):
        Manifest.load(other)
    header = {b"vclr_manifest": json.dumps({"schema": 0}).encode()}
    table = table.replace_schema_metadata(header)
    with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="another version"):
        Manifest.load(other)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("label", [0, 2], "a label is none of its 2 classes"),
        ("label", [0, None], "a row has no label"),
        ("start", [3.0, None], "a clip does not begin before it ends"),
        ("start", [None, None], "a clip does not begin before it ends"),
        ("spans", [[{"start": 0.0, "end": None, "label": 0}], None], "a span has no time or label"),
    ],
)
def test_values_that_no_manifest_has_are_refused(
    column: str, values: list[object], words: str, tmp_path: Path
) -> None:
    rows = [Row(path="a.mp4", start=1.0, end=2.0), Row(path="b.mp4")]
    file = write_manifest(tmp_path / "m.arrow", rows, Info(root=tmp_path, classes=CLASSES))
    batch, _ = map_arrow(file, title="manifest")
    place = batch.schema.names.index(column)
    made = pa.array(values, batch.schema.field(column).type)
    changed = [*batch.columns[:place], made, *batch.columns[place + 1 :]]
    other = tmp_path / "other.arrow"
    with other.open("wb") as sink:
        write_arrow(sink, pa.record_batch(changed, schema=batch.schema))
    with pytest.raises(UserError, match=words):
        Manifest.load(other)


def test_rows_of_an_older_manifest_are_compared_with_its_fingerprint(file: Path) -> None:
    batch = pa.ipc.open_file(file.read_bytes()).get_batch(0)
    kept = {k: v for k, v in batch.schema.metadata.items() if k != b"vclr_checksum"}
    content = pa.BufferOutputStream()
    with pa.ipc.new_file(content, batch.schema.with_metadata(kept)) as writer:
        writer.write_batch(batch.replace_schema_metadata(kept))
    written = content.getvalue().to_pybytes()
    older, changed = file.with_name("older.arrow"), file.with_name("changed.arrow")
    older.write_bytes(written)
    assert Manifest.load(older).name(0) == "v0"
    changed.write_bytes(written.replace(b"run/v0.mp4", b"run/v1.mp4"))
    with pytest.raises(UserError, match="its rows are not those that were written"):
        Manifest.load(changed)


def test_writer_refuses_what_makes_no_manifest(tmp_path: Path) -> None:
    info = Info(root=tmp_path)
    with pytest.raises(UserError, match="no videos"):
        write_manifest(tmp_path / "m.arrow", [], info)
    with pytest.raises(UserError, match="more than once"):
        write_manifest(tmp_path / "m.arrow", [Row(path="a"), Row(path="a", split="val")], info)
    with pytest.raises(UserError, match="label 0, but there are 0 classes"):
        write_manifest(tmp_path / "m.arrow", [Row(path="a", label=0)], info)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["../a.mp4", "run/../../a.mp4", "..", "/etc/passwd", "", "a\0.mp4", "run/.."]
)
def test_paths_stay_below_the_root(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ["run/..a.mp4", "run/a..mp4", "...", "a b/\u00e9.mp4"]
    rows = [Row(path=name) for name in [*good, path]]
    with pytest.raises(UserError, match="does not stay below the root"):
        write_manifest(tmp_path / "m.arrow", rows, Info(root=tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(manifest_file, "OUTSIDE", "(?!)")  # as another program writes it
        write_manifest(tmp_path / "m.arrow", rows, Info(root=tmp_path))
    with pytest.raises(UserError, match=r"m\.arrow is damaged \(it names .*, which is not below"):
        Manifest.load(tmp_path / "m.arrow")
    write_manifest(tmp_path / "m.arrow", rows[:-1], Info(root=tmp_path))
    assert len(Manifest.load(tmp_path / "m.arrow")) == len(good)


def test_a_failed_write_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(UserError, match="cannot write"):
        write_manifest(file / "below_a_file.arrow", rows(), Info(root=file, classes=CLASSES))
    with pytest.raises(pa.ArrowInvalid):
        write_manifest(file, [Row(path="a", size="x")], Info(root=file))  # type: ignore[arg-type]
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_written_file_obeys_the_umask(file: Path) -> None:
    code = (
        "import os, sys; os.umask(0o027)\n"
        "from pathlib import Path\n"
        "from vclr_lightning.data.manifest import Info, Row, write_manifest\n"
        "f = Path(sys.argv[1]); write_manifest(f, [Row(path='a')], Info(root=f.parent))\n"
        "assert f.stat().st_mode & 0o777 == 0o640"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
