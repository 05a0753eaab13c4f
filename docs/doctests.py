"""An extension of mkdocstrings that shows the examples of docstrings as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Call sections ``Example:`` as mkdocstrings does those that it reads as doctests."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section before the docstring is parsed."""
        if obj.docstring:
            text = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
            obj.docstring.value = text
