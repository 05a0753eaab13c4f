from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vclr_lightning.callbacks.progress import RunProgress, estimate

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning", "ignore:The .*dataloader. does not have many workers"
)


@pytest.mark.parametrize("terminal", [True, False])
def test_shows_epoch_step_and_time_left(fit: Any, tmp_path: Path, terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    bar = RunProgress(refresh_s=0, line_every_s=0, console=console)
    fit(tmp_path, bar, enable_progress_bar=True)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("epoch 1/3", "epoch 3/3", "step 15/15", "left 0:00:00"):
        assert words in shown


def test_the_time_left_follows_from_the_speed() -> None:
    assert estimate(done=0, total=10, seconds=5) == "?"
    assert estimate(done=10, total=10, seconds=5) == "0:00:00"
    assert estimate(done=1, total=25, seconds=3600) == "1 day, 0:00:00"
