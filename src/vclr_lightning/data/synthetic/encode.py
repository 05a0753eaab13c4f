"""Write frames as an H.264 file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_video(
    path: Path, frames: NDArray[np.uint8], *, fps: int, keyframe_interval: int = 8
) -> None:
    """Encode RGB frames; the same frames give the same file, byte by byte, with the same encoder.

    Args:
        path: of the new file, its suffix names the container.
        frames: even height and width.
        fps: frames per second.
        keyframe_interval: frames from one keyframe to the next.

    Shape:
        ``frames``: ``(n, H, W, 3)`` uint8.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    with av.open(str(partial), "w", format=path.suffix[1:]) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = keyframe_interval
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1  # several would make the bytes depend on their number
        stream.options = {"crf": "18", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)
