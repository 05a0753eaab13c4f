"""The same frames give the same bytes, whatever lies in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Memory that is handed out again holds what the process wrote there before, as in a long run.
ENCODE = """
import ctypes, hashlib, random, sys
from pathlib import Path
import numpy as np
from vclr_lightning.data.prepare.video_writer import write_video
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.transcode import transcode

draw = random.Random(int(sys.argv[2]))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
held = []
for size in [int(2 ** draw.uniform(5, 17)) for _ in range(3000)]:
    held.append(libc.malloc(size))
    ctypes.memset(held[-1], draw.randrange(256), size)
draw.shuffle(held)
for place in held:
    libc.free(place)

for height, width in [(32, 48), (32, 64), (64, 112), (64, 128)]:
    rng = np.random.default_rng([height, (width - height) // 16])
    scenes = rng.integers(0, 256, (6, height // 8, width // 8, 3), np.uint8)
    scenes = scenes.repeat(8, 1).repeat(8, 2)
    frames = np.stack([np.roll(scenes[k // 6], k * int(rng.integers(3)), 1) for k in range(36)])
    frames[:, height // 4 : height // 2, : width // 4] = 200
    video = Path(sys.argv[1]) / f"{height}x{width}.mp4"
    write_video(video, frames, fps=12)
    transcode(video, video.with_name(f"{height}x{width}_32.mp4"), Recipe(short_edge=32))
for file in sorted(Path(sys.argv[1]).iterdir()):
    print(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""


def test_bytes_do_not_depend_on_what_lies_in_memory(tmp_path: Path) -> None:
    """With its macroblock tree, x264 reads beyond its rows where it has AVX-512."""
    printed = set()
    for seed in ("0", "85", "170"):
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-c", ENCODE, str(tmp_path / seed), seed]
        printed.add(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert len(printed) == 1
    assert len(printed.pop().splitlines()) == 8
