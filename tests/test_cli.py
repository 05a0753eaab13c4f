"""The command line: help, errors in one sentence, exit statuses, and the first two commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib import import_module
from pathlib import Path

import av
import numpy as np
import pytest

from vclr_lightning import __version__
from vclr_lightning.cli import COMMANDS, main
from vclr_lightning.data.manifest import Manifest

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for name in ("run/s1_a.mp4", "run/s1_b.mp4", "walk/s2_a.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=Fraction(10))
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for k in range(5):
                picture = np.full((48, 64, 3), 20 * k, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return folder


def fails(arguments: list[str], message: str, capsys: Capture) -> None:
    """Check for status 2 and one line on standard error, with ``message`` in it."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; from vclr_lightning.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'av', 'rich', 'hydra'} & set(sys.modules)\n"
        "commands = [m for m in sys.modules if m.startswith('vclr_lightning.commands')]\n"
        "assert not heavy and not commands, (heavy, commands)"
    )
    wide = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run([sys.executable, "-c", code], env=wide, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, text in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert text in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    assert callable(import_module(f"vclr_lightning.commands.{name}").run)
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: vclr {name}" in capsys.readouterr().out


def test_no_command_and_version(capsys: Capture) -> None:
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_usage_errors_are_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    fails(["idnex"], "there is no command 'idnex'; did you mean 'index'", capsys)
    fails(["zzz"], "there is no command 'zzz'; there are: .*index", capsys)
    fails(["index"], "required: ROOT; see `vclr index --help`", capsys)
    fails(["index", "--nope", "x"], "unrecognized arguments: --nope", capsys)
    fails(["index", "x", "--workers", "many"], "invalid int value: 'many'", capsys)
    fails(["index", "x", "--workers", "0"], "--workers 0 must be at least 1", capsys)
    fails(["index", str(tmp_path / "none")], "none does not exist; give the folder", capsys)
    fails(["index", str(tmp_path)], "there are no videos in", capsys)
    fails(["index", str(tmp_path), "--list", "a.txt"], "must be SPLIT=FILE", capsys)
    fails(["index", str(tmp_path), "--list", "train=a.txt"], "cannot read a.txt", capsys)
    (tmp_path / "a.mp4").write_text("a video")
    taken = ["index", str(tmp_path), "--out", str(tmp_path / "a.mp4")]
    fails(taken, "a.mp4 exists and is no manifest; give another file", capsys)
    fails(["show", str(tmp_path / "m.arrow")], "there is no manifest", capsys)


def test_index_and_show(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (root / "walk" / "bad.mp4").write_text("no video")
    (root / "walk" / "notes.txt").touch()
    assert main(["index", "videos", "--group-regex", r"s\d"]) == 0
    shown = capsys.readouterr().out
    for row, text in (
        ("videos", r"3 \(2 groups\)"),
        ("splits", "train 3"),
        ("classes", r"2 \(3 videos labelled\)"),
        ("sizes", "64x48 3"),
        ("codecs", "mpeg4 3"),
        ("rejected", "1"),
        ("opened now", "4"),
        ("other files", r"1 \(1 \.txt\)"),
    ):
        assert re.search(rf"{row} +│ {text}", shown), (row, shown)
    assert "1 rejected, listed in" in shown
    assert (tmp_path / "videos.rejected.csv").is_file()

    assert main(["show", "videos.arrow", "--check"]) == 0
    assert "0 of 3 files have changed since they were indexed" in capsys.readouterr().out
    (root / "walk" / "s2_a.mp4").unlink()
    assert main(["show", "videos.arrow", "--check", "--split", "train"]) == 0
    shown = capsys.readouterr().out
    assert "1 of 3 files have changed since they were indexed" in shown
    assert "missing: walk/s2_a.mp4" in shown
    fails(["show", "videos.arrow", "--split", "val"], "no split 'val'; it has: train", capsys)
    root.rename(tmp_path / "moved")
    assert main(["show", "videos.arrow"]) == 0
    capsys.readouterr()
    fails(["show", "videos.arrow", "--check"], "which does not exist; give the folder", capsys)
    assert main(["show", "videos.arrow", "--check", "--root", "moved"]) == 0


def test_index_from_lists_and_kinetics(root: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.txt").write_text("run/s1_a.mp4 0\nrun/none.mp4 0\n")
    (tmp_path / "b.txt").write_text("walk/s2_a.mp4 5 1\n")
    out = tmp_path / "out" / "m.arrow"
    lists = [f"--list=train={tmp_path}/a.txt", f"--list=val={tmp_path}/b.txt"]
    assert main(["index", str(root), *lists, "--out", str(out)]) == 0
    manifest = Manifest.load(out)
    assert manifest.splits == ("train", "val")
    assert manifest.classes == ("run", "walk")
    assert "1 x no such file" in capsys.readouterr().out

    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    (tmp_path / "k.csv").write_text(head + "go,s1_a,0,10,val,0\ngo,s1_b,0,10,train,0\n")
    assert main(["index", str(root), "--kinetics", f"{tmp_path}/k.csv", "--out", str(out)]) == 0
    manifest = Manifest.load(out)
    assert (manifest.splits, manifest.classes) == (("train", "val"), ("go",))
    assert re.search("in no list +│ 1 videos", capsys.readouterr().out)


def _vclr(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vclr_lightning.cli", *map(str, arguments)]
    # A test run in the background may ignore Ctrl-C, and its children with it.
    attend = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, text=True, preexec_fn=attend, **options)  # type: ignore[call-overload, no-any-return]


def _wait_for(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not true():
        time.sleep(0.01)


def test_ctrl_c_says_how_to_continue(root: Path, tmp_path: Path) -> None:
    for number in range(300):
        os.link(root / "run/s1_a.mp4", root / f"run/{number:03d}.mp4")
    out, journal = tmp_path / "m.arrow", tmp_path / "m.journal"
    process = _vclr("index", root, "--out", out, "--workers", 1, stderr=subprocess.PIPE)
    _wait_for(lambda: journal.exists() and journal.stat().st_size > 1000, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "\nstopped by SIGINT; the same command continues\n"
    assert journal.exists()
    assert not out.exists()


@pytest.mark.parametrize("printer", ["print('x')", "import rich; rich.print('x')"])
def test_a_closed_pipe(tmp_path: Path, printer: str) -> None:
    (tmp_path / "talker.py").write_text(
        f"def add_arguments(parser): pass\ndef run(args):\n    {printer}\n"
    )
    code = (
        "import sys, talker; from vclr_lightning import cli\n"
        "sys.modules['vclr_lightning.commands.talk'] = talker\n"
        "cli.COMMANDS = {'talk': 'talks'}; sys.exit(cli.main(['talk']))"
    )
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    _, errors = process.communicate()
    assert process.returncode in (1, 141)  # rich ends with 1 by itself
    assert errors == b""


def test_bash_completes_commands_options_and_files(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--completion", "bash"])
    (tmp_path / "vclr.bash").write_text(capsys.readouterr().out)

    def completed(*words: str) -> set[str]:
        typed = " ".join(words)
        script = f"""
            source vclr.bash
            COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1} COMP_LINE={typed!r}
            "$(complete -p vclr | sed 's/.*-F //; s/ vclr//')" vclr
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        command = ["bash", "--norc", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return set(done.stdout.split())

    assert completed("vclr", "sh") == {"shard", "show"}
    assert "--check" in completed("vclr", "show", "--ch")
    assert "videos" in completed("vclr", "show", "vid")


@pytest.mark.parametrize(("shell", "begins"), [("zsh", "#compdef vclr\n"), ("tcsh", "#")])
def test_other_shells_get_every_command(shell: str, begins: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--completion", shell])
    script = capsys.readouterr().out
    assert script.startswith(begins)
    assert set(COMMANDS) <= set(re.findall(r"[a-z]+", script))
