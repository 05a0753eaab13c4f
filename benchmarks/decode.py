"""Reading sparse frames against decoding everything and against torchcodec.

    python -m benchmarks.decode

Clips of 10 s, 340x256, 30 fps, H.264, with a keyframe every 250 frames (g250), every 12 (g12) and
on every frame (intra). A call draws 3 + 3 frames, one of each third of the clip, twice; opening the
file and locating its packets count. Decoding everything converts only the drawn frames to RGB. All
decode in one thread. ``VCLR_TEST_DATA`` names a folder of real clips; without it the content is
synthetic: moving textures with grain. Ratios depend on the content: the larger the share of a
clip's bytes in frames that no other frame refers to, the more can be skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from rich.console import Console

from benchmarks import pyav_ffmpeg
from benchmarks.timing import Comparison, compare, report
from vclr_lightning.data.readers import PyAVReader

WIDTH, HEIGHT, FPS, FRAMES = 340, 256, 30, 300
STEPS = (8, 16, 32, 64)  # octaves of the synthetic textures, pixels
GRAIN = 0.015  # of the synthetic clip; makes files about as large as the real clip's
QUALITY = "18"  # x264's; gives a Kinetics clip the size in which it is distributed
KEYFRAMES = {"g250": 250, "g12": 12, "intra": 1}
REAL_CLIP = "clips/mmaction2__test.mp4"
OURS, EVERYTHING, TORCHCODEC = "vclr_lightning", "decode everything", "torchcodec approximate"
LEAST = {"g250": 1.8, "g12": 7.0, "intra": 26.0}
LEAST_TORCHCODEC = {"g250": 1.4, "g12": 1.4}
CALLS = {OURS: 4, TORCHCODEC: 4}  # of different draws; decoding everything costs the same for all


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise as strong as it is coarse, like photographs, ``(height, width, 3)`` in 0..1."""
    picture = np.zeros((height, width, 3))
    for step in STEPS:
        coarse = rng.random((height // step + 2, width // step + 2, 3))
        rows, columns = np.arange(height) / step, np.arange(width) / step
        r, c = rows.astype(int), columns.astype(int)
        fr, fc = (rows - r)[:, None, None], (columns - c)[None, :, None]
        top = coarse[r][:, c] * (1 - fc) + coarse[r][:, c + 1] * fc
        bottom = coarse[r + 1][:, c] * (1 - fc) + coarse[r + 1][:, c + 1] * fc
        picture += (top * (1 - fr) + bottom * fr) * step / sum(STEPS)
    return picture


def synthetic() -> Iterator[av.VideoFrame]:
    """Yield frames of textures that move."""
    rng = np.random.default_rng(0)
    ground = _texture(rng, 2 * HEIGHT, 3 * WIDTH)
    bodies = [_texture(rng, 96, 72) for _ in range(4)]
    phase = rng.random((4, 2)) * 6.3
    for i in range(FRAMES):
        y, x = int(60 + 50 * np.sin(i / 40)), int(i * 1.7)
        picture = ground[y : y + HEIGHT, x : x + WIDTH].copy()
        for k, body in enumerate(bodies):
            top = int(80 + 70 * np.sin(i / (9 + 4 * k) + phase[k, 0]))
            left = int(134 + 130 * np.sin(i / (14 + 5 * k) + phase[k, 1]))
            picture[top : top + 96, left : left + 72] = body
        grain = rng.normal(0, GRAIN, (HEIGHT, WIDTH, 1))
        pixels = (255 * np.clip(1.6 * picture - 0.3 + grain, 0, 1)).astype(np.uint8)
        yield av.VideoFrame.from_ndarray(pixels)


def _real(clip: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(clip)) as container:
        for _, frame in zip(range(FRAMES), container.decode(video=0), strict=False):
            yield frame.reformat(WIDTH, HEIGHT, "yuv420p")


def make_clips(folder: Path, *, quality: str = QUALITY) -> dict[str, Path]:
    """Encode the same content with each spacing of keyframes."""
    real = Path(os.environ.get("VCLR_TEST_DATA", "")) / REAL_CLIP
    source = _real(real) if "VCLR_TEST_DATA" in os.environ and real.is_file() else synthetic()
    frames = [frame.reformat(format="yuv420p").to_ndarray() for frame in source]
    clips = {name: folder / f"{name}.mp4" for name in KEYFRAMES}
    for name, every in KEYFRAMES.items():
        with av.open(str(clips[name]), "w") as container:
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"crf": quality, "g": str(every), "threads": "1"}
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="yuv420p")))
            container.mux(stream.encode())
    return clips


def draw(number: int) -> np.ndarray:
    """Return 3 + 3 indices of a round: one of each third of the clip, twice."""
    rng = np.random.default_rng(number % 2**32)
    third = FRAMES // 3
    return (np.arange(3) * third + rng.integers(0, third, (2, 3))).ravel()


def _read(path: Path) -> Callable[[int], object]:
    reader = PyAVReader()

    def run(number: int) -> object:
        with reader.open(path) as video:
            return video.read(draw(number))

    return run


def _decode_everything(path: Path) -> Callable[[int], object]:
    def run(number: int) -> object:
        wanted = set(draw(number).tolist())
        converter = av.video.reformatter.VideoReformatter()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            return [
                converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                for index, frame in enumerate(container.decode(stream))
                if index in wanted
            ]

    return run


def _torchcodec(path: Path) -> Callable[[int], object]:
    from torchcodec.decoders import VideoDecoder

    def run(number: int) -> object:
        decoder = VideoDecoder(
            path, seek_mode="approximate", num_ffmpeg_threads=1, dimension_order="NHWC"
        )
        return decoder.get_frames_at(indices=draw(number).tolist()).data

    return run


def measure(repeats: int, *, with_torchcodec: bool) -> dict[str, Comparison]:
    """Measure every clip."""
    found: dict[str, Comparison] = {}
    np.ones(
        2**24, dtype=np.uint8
    )  # as batches do in a data worker: memory freed is kept from now on
    with tempfile.TemporaryDirectory() as folder:
        for name, path in make_clips(Path(folder)).items():
            ours = _read(path)
            rivals = {EVERYTHING: (_decode_everything(path), LEAST[name])}
            if with_torchcodec and name in LEAST_TORCHCODEC:
                rivals[TORCHCODEC] = (_torchcodec(path), LEAST_TORCHCODEC[name])
            for rival, (run, least) in rivals.items():
                found[f"{name}, against {rival}"] = compare(
                    {rival: run, OURS: ours},
                    baseline=rival,
                    repeats=repeats,
                    targets={OURS: least},
                    calls=CALLS,
                    label=f"{name}, against {rival}",
                )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21, help="rounds that count")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    lack = pyav_ffmpeg.missing()
    if lack is not None:
        status = pyav_ffmpeg.run_again("benchmarks.decode", arguments)
        if status is not None:
            return status
        Console().print(f"{lack}: the comparison with it is left out")
    return report(measure(options.repeats, with_torchcodec=lack is None))


if __name__ == "__main__":
    sys.exit(main())
