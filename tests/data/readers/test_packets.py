"""The packet table, and when it is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vclr_lightning.data.readers.packets import (
    PacketTable,
    count_doubt,
    read_table,
    timestamp_doubt,
)


def _table(pts: list[int], **changed: Any) -> PacketTable:
    count = len(pts)
    columns: dict[str, Any] = {
        "pts": np.array(pts),
        "place": 100 * np.arange(count),
        "key": np.arange(count) % 4 == 0,
        "kept": np.ones(count, bool),
        "stamped": True,
        "intact": True,
    }
    return PacketTable(**{**columns, **changed})


MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
RISING, REORDERED = [0, 1, 2, 3], [0, 3, 1, 2]


@pytest.mark.parametrize(
    ("table", "container", "codec", "reorders", "tagged", "reason"),
    [
        (_table(REORDERED), MP4, "h264", True, True, None),
        (_table(RISING), MP4, "h264", False, True, None),
        (_table(RISING), "avi", "mpeg4", False, True, None),
        (_table(REORDERED), "matroska,webm", "h264", True, False, None),
        (_table(REORDERED), "mpegts", "h264", True, False, "mpegts does not say"),
        (_table(RISING), "gif", "gif", False, False, "gif does not say"),
        (_table(REORDERED), "avi", "h264", True, True, "times of decoding"),
        (_table(REORDERED), "matroska,webm", "h264", True, True, "times of decoding"),
        (_table(REORDERED), MP4, "mpeg4", True, True, "share a packet"),
        (_table(RISING), MP4, "h264", True, True, "not by their presentation times"),
        (_table([0, 1, 1, 2]), MP4, "h264", False, True, "one presentation time"),
        (_table(REORDERED), MP4, "mpeg2video", False, True, "frames are not reordered"),
        (_table(RISING, stamped=False), MP4, "h264", False, True, "no presentation time"),
    ],
)
def test_when_times_identify_frames(
    table: PacketTable,
    container: str,
    codec: str,
    reorders: bool,
    tagged: bool,
    reason: str | None,
) -> None:
    doubt = timestamp_doubt(
        table=table, container=container, codec=codec, reorders=reorders, tagged=tagged
    )
    assert (doubt is None) is (reason is None)
    assert reason is None or (doubt and reason in doubt)


@pytest.mark.parametrize(
    ("table", "promised", "reason"),
    [
        (_table(RISING), 4, None),
        (_table(RISING), 0, None),
        (_table(RISING), 6, "promises 6 frames and the file holds 4"),
        (_table(RISING, intact=False), 4, "damaged"),
        (_table(RISING, key=np.zeros(4, bool)), 4, "no keyframe"),
        (_table([3, 1, 4, 5]), 4, "before the first keyframe"),
        (_table([3, 1, 4, 5], kept=np.array([True, False, True, True])), 4, None),
        (_table([]), 0, None),
    ],
)
def test_when_the_count_is_in_doubt(table: PacketTable, promised: int, reason: str | None) -> None:
    doubt = count_doubt(table=table, promised=promised)
    assert (doubt is None) is (reason is None)
    assert reason is None or (doubt and reason in doubt)


def test_frames_by_index() -> None:
    table = _table([10, 40, 20, 30, 50], kept=np.array([False, True, True, True, True]))
    assert table.num_frames == 4
    assert table.positions().tolist() == [2, 3, 1, 4]


def test_keyframe_interval() -> None:
    assert _table(list(range(10))).keyframe_interval == 10 / 3
    assert _table(RISING, key=np.array([True, False, False, False])).keyframe_interval == 4
    assert _table(RISING, key=np.zeros(4, bool)).keyframe_interval is None


def test_table_of_a_real_file(video: Callable[..., Path]) -> None:
    path = video(".mp4", "libx264", options={"threads": "1", "g": "12"})
    with av.open(str(path)) as container:
        table = read_table(container, container.streams.video[0])
    with av.open(str(path)) as container:
        shown = [frame.pts for frame in container.decode(video=0)]
    assert table.pts[table.positions()].tolist() == shown
    assert len(table) == table.num_frames == 50
    assert np.flatnonzero(table.key).tolist() == [0, 12, 24, 36, 48]
    assert table.stamped
    assert table.intact
