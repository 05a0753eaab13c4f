"""Rows that are parts of files, annotated spans, and manifests from before there were any."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest import (
    Info,
    Manifest,
    Row,
    Span,
    changed_files,
    summarise,
    write_manifest,
)
from vclr_lightning.data.manifest.schema import METADATA_KEY, arrow_schema

CLASSES = ("run", "walk")
SPANS = (Span(0.5, 2.0, 1), Span(2.0, 9.0, 0))


def write(folder: Path, *rows: Row) -> Manifest:
    info = Info(root=folder, classes=CLASSES)
    return Manifest.load(write_manifest(folder / "m.arrow", rows, info))


def test_windows_and_spans_come_back(tmp_path: Path) -> None:
    late = Row(path="a.mp4", start=2.5, end=4.0, label=1)
    early = Row(path="a.mp4", start=0.5, end=4.0, label=0)
    whole = Row(path="b.mp4", spans=SPANS)
    manifest = write(tmp_path, whole, late, early)
    assert [manifest.window(i) for i in range(3)] == [(0.5, 4.0), (2.5, 4.0), None]
    assert [manifest.spans(i) for i in range(3)] == [(), (), SPANS]
    assert manifest.column("spans").tolist() == [0, 0, 2]
    assert np.isnan(manifest.column("start")).tolist() == [False, False, True]
    assert manifest.group_id(0) == manifest.group_id(1) != manifest.group_id(2)
    view = manifest.select(np.array([False, True, True]))
    assert (view.window(0), view.spans(1)) == ((2.5, 4.0), SPANS)
    assert (view.has_spans, manifest.select(np.array([True, True, False])).has_spans) == (
        True,
        False,
    )


def test_summary_counts_each_file_once(tmp_path: Path) -> None:
    clips = [
        Row(path="a.mp4", start=k, end=k + 1, size=10, duration=60.0, split="test", label=k % 2)
        for k in range(4)
    ]
    manifest = write(tmp_path, *clips, Row(path="b.mp4", size=5, duration=3596.0, spans=SPANS))
    summary = summarise(manifest)
    assert (summary.files, summary.clips, summary.spans, summary.bytes) == (2, 4, 2, 15)
    assert summary.hours == pytest.approx(1)
    assert changed_files(manifest) == {"a.mp4": "missing", "b.mp4": "missing"}


def test_classes_that_training_lacks_are_counted(tmp_path: Path) -> None:
    rows = [Row(path=f"{k}.mp4", split="test", label=k % 2) for k in range(5)]
    assert summarise(write(tmp_path, *rows)).untrained == {}
    manifest = write(tmp_path, *rows, Row(path="t.mp4", label=0), Row(path="u.mp4"))
    assert summarise(manifest).untrained == {"walk": 2}
    said = "1 classes have no video in train, but 2 in other splits: walk 2"
    assert summarise(manifest).untrained_notice() == said
    assert summarise(write(tmp_path, *rows, Row(path="u.mp4"))).untrained == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": 1.0}, "give both ends"),
        ({"start": 2.0, "end": 2.0}, "the window 2.0 to 2.0"),
        ({"start": -1.0, "end": 2.0}, "at least 0"),
        ({"spans": (Span(0.0, 1.0, 2),)}, "label 2, but there are 2 classes"),
        ({"start": 0.0, "end": 1.0}, "both whole and as a clip"),
        ({}, "come more than once"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    row = Row(path="a.mp4")
    with pytest.raises(UserError, match=said):
        write(tmp_path, row, replace(row, **changes))  # type: ignore[arg-type]


def test_manifests_without_windows_still_open(tmp_path: Path) -> None:
    manifest = write(tmp_path, Row(path="a.mp4", label=1, fps=25.0), Row(path="b.mp4"))
    with pa.ipc.open_file(str(manifest.file)) as reader:
        table = reader.read_all()
    content = json.loads(table.schema.metadata[METADATA_KEY])
    old = arrow_schema(1).with_metadata({METADATA_KEY: json.dumps({**content, "schema": 1})})
    columns = table.combine_chunks().to_batches()[0].columns[: len(old)]
    file = tmp_path / "old.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, old) as writer:
        writer.write_batch(pa.record_batch(columns, schema=old))
    opened = Manifest.load(file)
    assert (opened.window(0), opened.spans(1), opened.has_spans) == (None, (), False)
    assert opened.labels.tolist() == [1, -1]
    assert opened.fingerprint == manifest.fingerprint
    assert summarise(opened).clips == 0
    newer = old.with_metadata({METADATA_KEY: json.dumps({**content, "schema": 3})})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, newer) as writer:
        writer.write_batch(pa.record_batch(columns, schema=newer))
    with pytest.raises(UserError, match="another version of this package"):
        Manifest.load(file)


def test_the_hash_knows_windows_and_spans(tmp_path: Path) -> None:
    rows = [
        Row(path="a.mp4"),
        Row(path="a.mp4", start=0.0, end=1.0),
        Row(path="a.mp4", start=0.0, end=2.0),
        Row(path="a.mp4", spans=SPANS),
    ]
    assert len({write(tmp_path, row).fingerprint for row in rows}) == 4
