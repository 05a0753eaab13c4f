"""When frames are shown, beside what decoding each of them tells."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from vclr_lightning.data.readers import PyAVReader

# The containers of these store no time of every frame.
RATE_ALONE = (".avi", ".mpg", ".ts", ".ogv", ".wmv")


@pytest.mark.parametrize("folder", ["clips", "clips_derived"])
def test_times_are_those_of_the_decoded_frames(real_data: Path, folder: str) -> None:
    checked = 0
    for file in sorted((real_data / folder).iterdir()):
        if file.suffix == ".tsv" or file.name.startswith(("bad_", "decord__corrupted")):
            continue
        with PyAVReader().open(file) as video:
            times = video.times()
            assert times.shape == (video.num_frames,)
            assert times[0] == 0
            assert (np.diff(times) > 0).all()
        if file.suffix in RATE_ALONE:
            continue
        with av.open(str(file)) as container:
            shown = np.array([frame.time for frame in container.decode(video=0)])
        off = np.abs(times - (shown - shown[0]))
        # The last frame of a cut MP4 may be shown later than its index's even spacing says.
        assert off[:-1].max(initial=0) < 1.5e-3, file.name
        assert off[-1] < 1.5e-3 + np.diff(times).max(initial=0), file.name
        checked += 1
    assert checked > 10
