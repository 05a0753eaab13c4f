"""Files that are damaged, or made to do harm: a sentence or what was written, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_damage_is_noticed_and_ends_no_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("damaged.py")
    command = [sys.executable, str(script), str(tmp_path), "0", "60"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-400:] + ended.stderr
