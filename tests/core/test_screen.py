"""Paths are printed as they are, whatever rich or a shell would read into them."""

from __future__ import annotations

import ast
import io
import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from vclr_lightning import cli, train
from vclr_lightning.core import screen
from vclr_lightning.core.overrides import shell_override
from vclr_lightning.core.screen import PlainTable, progress_bar, show, track
from vclr_lightning.models import TinyBackbone, export_backbone, load_initial_weights

SOURCE = Path(__file__).parents[2] / "src" / "vclr_lightning"


@pytest.mark.parametrize("name", ["[old]", "a[/b]", "[red]x[/red]", ":fire:", "[[x]", "a\\[b]"])
def test_names_are_whole_on_anyone_s_console(name: str) -> None:
    table = PlainTable(name, title=f"in {name}")
    table.add_row(name)
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert console.file.getvalue().count(name) == 3  # type: ignore[attr-defined]


def test_names_command_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In lines, tables and errors: a name may hold what renames the window or deletes a line."""
    name = "a\x1b]0;title\x07\x9b2K.mp4"
    shown = r"a\x1b]0;title\x07\x9b2K.mp4"
    table = PlainTable(name, title=name)
    table.add_row(name)
    show(name, table)
    assert capsys.readouterr().out.count(shown) == 4
    assert cli.main(["show", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert shown in said
    assert not set(said) & set("\x1b\x07\x9b")


def test_there_is_one_way_to_the_screen() -> None:
    """No module makes a console or a table of rich that reads markup."""
    found = []
    for path in (path for path in SOURCE.rglob("*.py") if path.name != "screen.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
        names = {a.name for n in imports if str(n.module).startswith("rich") for a in n.names}
        calls = [
            n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        found += [f"{path.name}: {c}" for c in calls if c in names & {"Console", "Table"}]
    assert found == []


def command(*words: str) -> None:
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *words])
        try:
            train.main()
        finally:
            HydraConfig.instance().cfg = None


def test_commands_show_folders_of_any_name(
    video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "[old]" / "a[" / "b] :fire:"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(video_folder)
    manifest = folder.with_name("m [x].arrow")
    assert cli.main(["index", str(folder), "--out", str(manifest)]) == 0
    assert cli.main(["show", str(manifest), "--check"]) == 0
    said = capsys.readouterr().out
    assert f"wrote {shlex.quote(str(manifest))}" in said
    assert f"videos in {shlex.quote(str(folder))}" in said
    assert said.count("m [x].arrow  ") == 2  # the tables' titles
    weights = export_backbone(TinyBackbone(width=4, stages=1), manifest.with_suffix(".safetensors"))
    console = Console(file=io.StringIO(), width=500)
    console.print(load_initial_weights(TinyBackbone(width=4, stages=1), weights).table())
    said = "".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "".join(str(weights).split()) in said
    given = {"ckpt": weights, "data.manifest": manifest, "features.folder": folder.parent / "f[/]"}
    words = [shlex.split(shell_override(key, value))[0] for key, value in given.items()]
    small = ("image_size=32", "trainer=cpu", "data.num_workers=0", "features.num_frames=2")
    command("stage=features", *words, *small, f"run_dir={tmp_path}/run")
    said = "".join(capsys.readouterr().out.replace("│", "").split())
    assert "".join(str(given["features.folder"]).split()) in said


def test_lines_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    with progress_bar("probing [a]", 1200) as update:
        for second in range(25):
            now[0] = float(second)
            update(50 * second, "2 rejected")
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "probing [a]: 500 of 1,200, 2 rejected",
        "probing [a]: 1,000 of 1,200, 2 rejected",
    ]
    assert said.out == ""


def test_lines_of_a_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    for _ in track(range(3), "attention"):
        now[0] += 11
    for _ in track(iter(range(3)), "unseen", show=False):
        now[0] += 11
    assert capsys.readouterr().err.splitlines() == [
        f"attention: {number} of 3" for number in (1, 2, 3)
    ]
