"""Where standard error is no terminal, a line now and then says how far it is."""

from __future__ import annotations

import pytest

from vclr_lightning.core import progress
from vclr_lightning.core.progress import progress_bar, track


def test_lines_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress_bar("probing [a]", 1200) as update:
        for second in range(25):
            now[0] = float(second)
            update(50 * second, "2 rejected")
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "probing [a]: 500 of 1,200 2 rejected",
        "probing [a]: 1,000 of 1,200 2 rejected",
    ]
    assert said.out == ""


def test_lines_of_a_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in track(range(3), "attention"):
        now[0] += 11
    for _ in track(iter(range(3)), "unseen", show=False):
        now[0] += 11
    assert capsys.readouterr().err.splitlines() == [
        f"attention: {number} of 3" for number in (1, 2, 3)
    ]
