"""Stores of features: what is written is read, and what is not whole is no store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.feature_journals import FeatureJournal, read_journals
from vclr_lightning.evaluation.store import ABOUT, FEATURES, ROWS, FeatureStore
from vclr_lightning.evaluation.store_assembly import assemble

LABELS = [2, -1, 0, 1]
FRAMES = 3


def batch(rows: list[int], counts: list[int], rejected: list[int]) -> dict[str, Any]:
    """What a loader yields of these rows of the manifest."""
    mask = torch.arange(FRAMES) < torch.tensor(counts, dtype=torch.int64)[:, None]
    facts = {
        "label": [LABELS[row % 4] for row in rows],
        "video_id": [100 + row for row in rows],
        "group_id": [row // 2 for row in rows],
        "index": rows,
    }
    listed = [{"video_id": 100 + r, "path": f"{r}.mp4", "reason": "empty"} for r in rejected]
    tensors = {name: torch.tensor(v, dtype=torch.int64) for name, v in facts.items()}
    return {"mask": mask, "rejected": listed, **tensors}


def write(folder: Path, form: str, *, counts: dict[int, int], blocks: list[list[int]]) -> Any:
    """Write a store; rows without a count are rejected. Returns it and each video's features."""
    work, made = folder / ".part", {}
    torch.manual_seed(0)
    journals = [FeatureJournal(work), FeatureJournal(work)]
    for number, block in enumerate(blocks):
        rows = [row for row in block if row in counts]
        of_each = [torch.randn(counts[row], 5) for row in rows]
        made.update(zip(rows, of_each, strict=True))
        kept = [v.mean(dim=0, keepdim=True) for v in of_each] if form == "mean" else of_each
        content = batch(rows, [counts[r] for r in rows], [r for r in block if r not in counts])
        journals[number % 2].add(block, content, kept)
    for journal in journals:
        journal.close()
    done = read_journals(work)
    names = [f"v{row}" for block in blocks for row in block]
    assemble(
        [done[tuple(block)] for block in blocks],
        work=work,
        target=folder / "store",
        form=form,
        frames=FRAMES,
        names=names,
        paths=[f"/videos/{name}.mp4" for name in names],
        classes=("a", "b", "c"),
        provenance={"weights": "w", "split": "val"},
    )
    return FeatureStore.open(folder / "store"), made


COUNTS = {0: 3, 1: 1, 2: 2, 4: 3}
BLOCKS = [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("form", ["mean", "frames", "ragged"])
def test_what_is_written_is_read(form: str, tmp_path: Path) -> None:
    store, made = write(tmp_path, form, counts=COUNTS, blocks=BLOCKS)
    rows = [0, 1, 2, 4]
    assert (len(store), store.num_features, store.classes) == (4, 5, ("a", "b", "c"))
    assert store.index.tolist() == rows
    assert store.video_id.tolist() == [100 + row for row in rows]
    assert store.group_id.tolist() == [0, 0, 1, 2]
    assert store.label.tolist() == [2, -1, 0, 2]
    assert store.names == ["v0", "v1", "v2", "v4"]
    assert store.paths[3] == "/videos/v4.mp4"
    assert store.count.tolist() == [3, 1, 2, 3]
    assert [item["path"] for item in store.rejected] == ["3.mp4"]
    assert torch.allclose(store.mean, torch.stack([made[row].mean(dim=0) for row in rows]))
    if form == "mean":
        assert store.features.shape == (4, 5)
    elif form == "frames":
        assert store.features.shape == (4, 3, 5)
        assert torch.equal(store.features[1], made[1].expand(3, 5))  # the last one repeated
    else:
        assert torch.equal(store.features, torch.cat([made[row] for row in rows]))
    if form != "mean":
        for video, row in zip(store, rows, strict=True):
            assert torch.equal(video, made[row])
    assert sorted(file.name for file in store.folder.iterdir()) == [FEATURES, ROWS, ABOUT]


@pytest.mark.parametrize("form", ["mean", "frames", "ragged"])
def test_a_selection_is_the_rows_it_keeps(form: str, tmp_path: Path) -> None:
    store, made = write(tmp_path, form, counts=COUNTS, blocks=BLOCKS)
    labelled = store.labelled()
    assert labelled.index.tolist() == [0, 2, 4]
    assert labelled.names == ["v0", "v2", "v4"]
    assert torch.equal(labelled.mean, store.mean[[0, 2, 3]])
    twice = labelled.select(torch.tensor([False, True, True]))
    assert twice.index.tolist() == [2, 4]
    if form == "ragged":
        assert torch.equal(twice.features, torch.cat([made[2], made[4]]))
    else:
        assert torch.equal(twice.features, store.features[[2, 3]])


def test_the_way_to_the_measures(tmp_path: Path) -> None:
    store, made = write(tmp_path, "frames", counts=COUNTS, blocks=BLOCKS)
    features = store.feature_set(segments=3)
    assert torch.equal(features.mean, store.mean)
    assert torch.equal(features.segments[0], made[0])
    assert features.rejected == store.rejected
    averaged, _ = write(tmp_path / "mean", "mean", counts=COUNTS, blocks=BLOCKS)
    assert averaged.feature_set().segments.shape == (4, 1, 5)
    with pytest.raises(UserError, match="keep_frames=true"):
        averaged.feature_set(segments=3)


def test_nothing_labelled_is_said(tmp_path: Path) -> None:
    store, _ = write(tmp_path, "mean", counts={1: 1}, blocks=[[0, 1]])
    with pytest.raises(UserError, match="none of the videos of split val has a label"):
        store.labelled()


def test_no_readable_video_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of the 2 videos can be read; the first, 0\.mp4"):
        write(tmp_path, "mean", counts={}, blocks=[[0, 1]])


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "other"])
def test_what_is_not_whole_is_refused(damage: str, tmp_path: Path) -> None:
    store, _ = write(tmp_path, "mean", counts=COUNTS, blocks=BLOCKS)
    about = store.folder / ABOUT
    if damage == "missing":
        about.unlink()
    elif damage == "cut":
        file = store.folder / FEATURES
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "text":
        about.write_text("{")
    else:
        about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 0}))
    with pytest.raises(UserError, match=str(store.folder)):
        FeatureStore.open(store.folder)


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 2000), data=st.booleans())
def test_a_journal_is_right_up_to_where_it_was_cut(
    cut: int, data: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal, made = FeatureJournal(folder), {}
    for row in range(4):
        made[row] = torch.full((2, 5), float(row))
        journal.add([row], batch([row], [2], []), [made[row]])
    journal.close()
    (file,) = folder.glob("*.bin" if data else "*.jsonl")
    content = file.read_bytes()[:cut]
    file.write_bytes(content)
    found = read_journals(folder)
    assert sorted(found) == [(row,) for row in range(len(found))]
    for (row,), record in found.items():
        assert np.array_equal(record.read(), made[row].numpy())


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    journal = FeatureJournal(tmp_path)
    journal.add([0], batch([0], [1], []), [torch.ones(1, 5)])
    journal.close()
    (file,) = tmp_path.glob("*.bin")
    file.write_bytes(bytes(len(file.read_bytes())))
    assert read_journals(tmp_path) == {}


def test_features_are_mapped_not_read(tmp_path: Path) -> None:
    store, _ = write(tmp_path, "mean", counts=COUNTS, blocks=BLOCKS)
    stored: Tensor = store.features
    stored[0] = 0  # in this process alone
    assert not torch.equal(FeatureStore.open(store.folder).features[0], stored[0])
