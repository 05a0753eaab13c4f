"""The wheel contains everything, and runs without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_listed_packages_are_the_packages_in_the_tree() -> None:
    found = {
        ".".join(init.parent.relative_to(ROOT / "src").parts)
        for init in (ROOT / "src").rglob("__init__.py")
    }
    found |= {
        ".".join(("vclr_lightning", *config.parent.relative_to(ROOT).parts))
        for config in [*(ROOT / "conf").rglob("*.yaml"), ROOT / "conf" / "__init__.py"]
    }
    assert set(_project()["tool"]["setuptools"]["packages"]) == found


def test_every_source_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "src" / "vclr_lightning").rglob("*.py")}
    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that stale files of an earlier build can't slip in."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("src", "conf"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_wheel_carries_configs_and_typing_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        "vclr_lightning/conf/" + path.relative_to(ROOT / "conf").as_posix()
        for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert expected
    assert expected <= names
    assert "vclr_lightning/py.typed" in names


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; dependencies are borrowed, the checkout is not."""
    env = tmp_path_factory.mktemp("env")
    venv.create(env, with_pip=False, symlinks=True)
    python = env / "bin" / "python"
    paths = {"base": str(env), "platbase": str(env)}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    # A plain path line: the borrowed folder's own .pth files (the editable install) stay unread.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["+experiment=k400", "--cfg", "job"]],
    ids=["help", "experiment"],
)
def test_wheel_runs_from_another_folder(
    clean_python: Path, tmp_path: Path, arguments: list[str]
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    where = subprocess.run(
        [clean_python, "-c", "import vclr_lightning; print(vclr_lightning.__file__)"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert str(clean_python.parents[1]) in where.stdout
    done = subprocess.run(
        [clean_python, "-m", "vclr_lightning.train", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "experiment" in done.stdout or "objective" in done.stdout
    assert list(tmp_path.iterdir()) == []
