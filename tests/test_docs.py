"""What README and docs show is true: commands parse and compose, Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRAIN = ["python", "-m", "vclr_lightning.train"]


def _commands() -> list[tuple[str, list[str]]]:
    """Every shell command of every page, as (page, words)."""
    found = []
    for page in PAGES:
        for language, body in BLOCK.findall(page.read_text()):
            if language not in ("bash", "sh", "console"):
                continue
            for line in body.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words:
                    found.append((page.name, words))
    return found


COMMANDS = _commands()


def test_pages_show_commands() -> None:
    assert any(words[:3] == TRAIN for _, words in COMMANDS)
    assert any(words[0] == "vclr" for _, words in COMMANDS)


def test_only_known_programs_are_shown() -> None:
    known = {"make", "vclr", "python", "pip", "git", "cd", "torchrun"}
    assert {words[0] for _, words in COMMANDS} <= known


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(words[3:], id=f"{page}: {' '.join(words[3:])}"[:90])
        for page, words in COMMANDS
        if words[:3] == TRAIN and "--help" not in words
    ],
)
def test_training_commands_compose(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.override_parser.overrides_parser import OverridesParser

    plain = [word for word in overrides if word not in ("-m", "--multirun")]
    parser = OverridesParser.create()
    first = []
    for override in parser.parse_overrides(plain):
        if override.is_sweep_override():
            value = next(iter(override.sweep_string_iterator()))
            first.append(f"{override.get_key_element()}={value}")
        else:
            first.append(override.input_line)
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        assert compose("config", overrides=first)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{page}: {' '.join(words)}"[:90])
        for page, words in COMMANDS
        if words[0] == "vclr"
    ],
)
def test_vclr_commands_parse(words: list[str]) -> None:
    from vclr_lightning.cli import build_parser

    build_parser(words[1]).parse_args(words[1:])


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {words[1] for _, words in COMMANDS if words[0] == "make" and len(words) > 1}
    assert shown <= targets


def test_links_between_pages_lead_somewhere() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def _python(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return [body for language, body in BLOCK.findall(text) if language == "python"]


def test_python_page_runs(video_folder: Path, tmp_path: Path) -> None:
    namespace: dict[str, object] = {"folder": video_folder, "cache": tmp_path}
    for block in _python("python.md"):
        exec(compile(block, "docs/python.md", "exec"), namespace)
    assert len(namespace["features"]) == 2


def test_extending_page_runs() -> None:
    namespace: dict[str, object] = {"__name__": "extending"}
    for block in _python("extending.md"):
        exec(compile(block, "docs/extending.md", "exec"), namespace)
    assert [n for n, _ in namespace["module"].named_parameters() if n.endswith("key_head.weight")]
