"""Modules of other projects, for all callbacks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Lightning's advice, of which most projects see some, and torchdata's own.
ADVICE = (
    ".*does not have many workers.*",
    ".*that has length zero.*",
    ".*GPU available but not used.*",
    "'set_vital' is deprecated.*",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for message in ADVICE:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))
