"""The Python of docs/weights.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vclr_lightning.evaluation import FrozenTable

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"


def test_page_runs(video_folder: Path, tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"folder": video_folder, "cache": tmp_path}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    assert namespace["features"].shape == (2, 512)
    table = namespace["table"]
    assert isinstance(table, FrozenTable)
    assert len(table.row("untrained").values["r1"]) == 3
