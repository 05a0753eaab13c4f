"""The site has every page, and its generated references everything that they describe."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import cli, objectives, train

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
# What the commands of the first steps are made smaller by, so that a test can run them.
SMALLER = {"--train 60": "--train 4", "--val 20": "--val 2", "epochs=20": "epochs=1"}


def pages(nodes: Any) -> set[str]:
    """Return the files of a navigation."""
    if isinstance(nodes, str):
        return {nodes}
    inner = nodes.values() if isinstance(nodes, dict) else nodes
    return {page for node in inner for page in pages(node)}


def test_every_page_is_in_the_navigation() -> None:
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    generated = {"configuration/config.md", "api/objectives.md"}
    assert pages(NAV) == written | generated


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_has_every_file_and_every_described_key(
    hooks: ModuleType,
) -> None:
    pages = hooks._configuration()
    for file in (ROOT / "conf").rglob("*.yaml"):
        group = file.relative_to(ROOT / "conf").parts[0].removesuffix(".yaml")
        _, content = pages[f"configuration/{group}.md"]
        if group != "config":
            name = file.relative_to(ROOT / "conf" / group).with_suffix("").as_posix()
            assert f"\n## {name}\n" in content
        for command in re.findall(r"^#   (python -m .*)$", file.read_text(), re.MULTILINE):
            assert f"\n{command}\n" in content
    every = pages["configuration/config.md"][1]
    assert "| <code>num&#95;segments</code> | <code>3</code> | S, frames in a tuple |" in every
    warmup = (
        "<code>switch.<wbr>warmup&#95;epochs</code> | <code>5</code> | the paper mentions none;"
    )
    assert warmup in every
    assert "&#95;partial&#95;" not in every


def test_the_api_reference_has_public_names_alone(hooks: ModuleType) -> None:
    shown = [
        name
        for _, content in hooks._api().values()
        for name in re.findall(r"^::: (\S+)$", content, re.MULTILINE)
    ]
    assert len(shown) == len(set(shown)) > 200
    assert not [name for name in shown if "._" in name]
    last = {name.rpartition(".")[2] for name in shown}
    assert set(objectives.__all__) <= last
    assert {"VideoDataModule", "PretrainModule", "ResumableCheckpoint", "info_nce"} <= last


def test_formulas_need_no_script(hooks: ModuleType) -> None:
    drawn = hooks._formula(r"\frac{a}{b}" + "\n\n" + "c")
    assert drawn.count("<math") == 2
    assert "<mfrac>" in drawn
    linked = hooks.on_page_content("see :class:<code>~a.b.C</code>")
    assert linked == 'see <autoref identifier="a.b.C" optional><code>C</code></autoref>'


def test_every_method_has_a_page_with_its_formula() -> None:
    table = re.findall(
        r"^\| \[`(\w+)`\]\(methods/\1\.md\)", (DOCS / "methods.md").read_text(), re.M
    )
    assert len(table) == 14
    for name in table:
        assert "```math\n" in (DOCS / f"methods/{name}.md").read_text()


def test_first_steps_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's commands, made smaller, one after another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets
    text = (DOCS / "first_steps.md").read_text()
    for wide, narrow in SMALLER.items():
        assert wide in text
        text = text.replace(wide, narrow)
    commands = [
        shlex.split(line)
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if "/folder/of/videos" not in line  # tests/stages/test_small.py runs these
    ]
    for words in commands:
        if words[0] == "vclr":
            assert cli.main(words[1:]) == 0, words
            continue
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *words[3:]])
        try:
            train.main()
        except SystemExit as ended:
            pytest.fail(f"{words}: status {ended.code}")
        finally:
            HydraConfig.instance().cfg = None
    assert len(commands) == 8
    assert (tmp_path / "toy.safetensors").is_file()
    assert (tmp_path / "outputs/finetune/toy/report.html").is_file()
    (evaluation,) = tmp_path.glob("outputs/evaluate/*/evaluation.html")
    assert "untrained" in evaluation.read_text()
