"""A full disk ends every command with one sentence, and the same command then continues."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
import torch
import torchvision

from vclr_lightning.app.explain import explain
from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.data.manifest import Info, Row, write_manifest


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let files, those of child processes too, grow to ``size`` bytes: the system refuses more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    return tmp_path / "r18.pth"


@pytest.mark.parametrize(
    ("command", "size"),
    [
        *(("synth", 0), ("synth", 3000), ("index", 0), ("index", 3000)),
        *(("prepare", 0), ("prepare", 3000), ("shard", 3000), ("report", 700)),
    ],
)
def test_commands(
    command: str,
    size: int,
    video_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("step,epoch,train/loss\n1,0,2.0\n2,0,1.5\n")
    out = tmp_path / "out"
    words = {
        "synth": [str(out), "--train=1", "--val=1", "--untrimmed=0", "--size=64", "--workers=1"],
        "index": [str(video_folder), f"--out={out}.arrow", "--workers=1"],
        "prepare": [str(video_folder), f"--out={out}", "--workers=1"],
        "shard": [str(video_folder), f"--out={out}", "--workers=1"],
        "report": [str(run), f"--out={out}.html"],
    }[command]
    with room(size):
        assert main([command, *words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: cannot write")
    assert "File too large" in said
    assert main([command, *words]) == 0
    for video in out.rglob("*.mp4"):
        with av.open(str(video)) as container:
            assert sum(1 for _ in container.decode(video=0)) >= 20
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


def test_an_index_goes_on_where_the_disk_was_full(
    video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["index", str(video_folder), f"--out={tmp_path / 'm.arrow'}", "--workers=1"]
    with room(2500):
        assert main(words) == 2
    kept = (tmp_path / "m.journal").read_text().count('"num_frames"')
    assert 0 < kept < 18
    capsys.readouterr()
    assert main(words) == 0
    opened = next(line for line in capsys.readouterr().out.splitlines() if "opened now" in line)
    assert int(opened.split()[-2]) in (18 - kept, 19 - kept)  # the last line may be torn


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_convert(
    name: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with room(10**6):
        assert main(["convert", str(weights), str(tmp_path / name)]) == 2
    assert f"cannot write {tmp_path / name}: File too large" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["r18.pth"]


def test_output_that_leads_to_a_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    file = write_manifest(tmp_path / "m.arrow", [Row(path="a.mp4")], Info(root=tmp_path))
    command = [sys.executable, "-m", "vclr_lightning.cli", "show", str(file)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: cannot write: No space left on device; make room, and give the same command again\n"
    )


def test_what_a_library_makes_of_a_full_disk_is_seen_through(tmp_path: Path) -> None:
    def library() -> None:
        try:
            raise OSError(28, os.strerror(28))
        except OSError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error

    said = r"cannot write .*a: No space left"
    with pytest.raises(UserError, match=said), replacing(tmp_path / "a"):
        library()
    with pytest.raises(RuntimeError) as caught:
        library()
    assert str(explain(caught.value)).startswith("cannot write: No space left on device")
