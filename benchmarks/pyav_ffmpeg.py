"""Run torchcodec without an installed FFmpeg, on the libraries in PyAV's wheel.

torchcodec loads ``libavcodec.so.62`` and the like; in the wheel these have other names. A folder of
links provides the expected names, which the linker finds if it is on its path when a process
starts. Both then run the same FFmpeg, for a fair comparison.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

_MARK = "VCLR_BENCH_PYAV_FFMPEG"


def missing() -> str | None:
    """Return why torchcodec cannot be used in this process, or ``None`` if it can."""
    try:
        import torchcodec.decoders  # noqa: F401
    except ImportError:
        return "torchcodec is not installed"
    except (OSError, RuntimeError):
        return "torchcodec finds no FFmpeg that it can load"
    from torchcodec._internally_replaced_utils import load_core_libraries

    try:
        load_core_libraries()
    except (OSError, RuntimeError):
        return "torchcodec finds no FFmpeg that it can load"
    return None


@contextmanager
def environment() -> Iterator[dict[str, str] | None]:
    """Yield an environment in which a process finds PyAV's FFmpeg; ``None`` if that cannot help."""
    libraries = Path(av.__file__).parent.with_name("av.libs")
    if _MARK in os.environ or not libraries.is_dir() or not sys.platform.startswith("linux"):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        for file in libraries.iterdir():
            name = re.fullmatch(r"(lib(?:av|sw)[a-z]+)-[0-9a-f]+(\.so\.\d+)[\d.]*", file.name)
            if name:
                (Path(folder) / (name[1] + name[2])).symlink_to(file)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("LD_LIBRARY_PATH"))))
        yield {**os.environ, "LD_LIBRARY_PATH": path, _MARK: "1"}


def run_again(module: str, arguments: list[str]) -> int | None:
    """Run ``module`` in a process that finds PyAV's FFmpeg; ``None`` if that cannot help."""
    with environment() as env:
        if env is None:
            return None
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], env=env, check=False
        ).returncode
