"""The sdist contains everything; the wheel built from it runs without the repository."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.splitlines()


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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, unpacked, and the wheel made from it.

    Built from a copy, so that stale files of an earlier build can't slip in.
    """
    if not TRACKED:
        pytest.skip("no git repository to build from")
    copy = tmp_path_factory.mktemp("source")
    for name in TRACKED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (sdist,) = (copy / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(copy / "dist", filter="data")
    return copy / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    (folder,) = (path for path in built.iterdir() if path.is_dir())
    return folder


def test_sdist_carries_all_that_the_repository_has(unpacked: Path) -> None:
    assert len(TRACKED) > 500
    left_out = {name for name in TRACKED if not (unpacked / name).is_file()}
    assert left_out == {".gitignore"}
    unwanted = [p for p in unpacked.rglob("*") if p.suffix == ".pyc" or p.name == ".git"]
    assert unwanted == []


def test_tests_of_an_sdist_are_found(unpacked: Path, pytestconfig: pytest.Config) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += [f"-W{one}" for one in pytestconfig.getoption("pythonwarnings") or ()]
    done = subprocess.run(
        [*command, "tests/core", "tests/data/readers", "src/vclr_lightning/core"],
        cwd=unpacked,
        env=os.environ | {"PYTHONPATH": f"{unpacked / 'src'}{os.pathsep}{unpacked}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "tests/core/test_locks.py::" in done.stdout


def test_metadata_say_where_it_runs_and_what_to_cite(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    found = email.message_from_bytes(archive.read(name))
    versions = {c.rpartition(" ")[2] for c in found.get_all("Classifier") if ":: 3." in c}
    assert versions == {"3.11", "3.12", "3.13"}
    assert any("arxiv.org" in url for url in found.get_all("Project-URL"))
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["title"], cited["version"]) == (found["Name"], found["Version"])
    paper = cited["preferred-citation"]
    assert paper["title"] == "Video Contrastive Learning with Global Context"
    assert paper["authors"][0] == {"family-names": "Kuang", "given-names": "Haofei"}


def test_lowest_versions_are_those_that_are_declared() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/lowest.py"], check=True, capture_output=True, text=True
    )
    pins = dict(line.split("==") for line in done.stdout.split())
    assert pins.pop("lightning") == pins["pytorch-lightning"]
    assert len(pins) == len(_project()["project"]["dependencies"])
    assert (pins["hydra-core"], pins["av"], pins["pyarrow"]) == ("1.3.2", "14.2", "16")


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
