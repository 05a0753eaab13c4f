"""The callbacks with modules of other projects, under the other package of Lightning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vclr_lightning.core import lightning

FOLDER = Path(__file__).parent / "foreign"


@pytest.mark.slow
def test_all_of_it_under_the_other_package(pytestconfig: pytest.Config) -> None:
    other = {"pytorch_lightning": "lightning", "lightning": "pytorch_lightning"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += [f"-W{one}" for one in pytestconfig.getoption("pythonwarnings") or ()]
    done = subprocess.run(
        [*command, "-m", "not slow", str(FOLDER)],
        env=os.environ | {"VCLR_LIGHTNING": other[lightning.PACKAGE]},
        cwd=FOLDER.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
