"""Small annotation files of the official forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, content)`` writes bytes, text or JSON to ``annotations/name``; its folder."""

    def make(name: str, content: object) -> Path:
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text, encoding="utf-8", newline="")
        return folder

    return make
