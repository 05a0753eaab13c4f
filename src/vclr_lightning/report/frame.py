"""The frame of every page: one self-contained file, light or dark as the reader has it."""

from __future__ import annotations

from html import escape
from importlib import resources


def frame(title: str, body: str) -> str:
    """Return a whole page that needs no other file and no network.

    Args:
        title: of the window, as text.
        body: HTML.

    Example:
        >>> page = frame("Tom & Jerry", "<h1>A run</h1>")
        >>> "<title>Tom &amp; Jerry</title>" in page, page.count("<h1>")
        (True, 1)
    """
    style = resources.files("vclr_lightning.report").joinpath("style.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n{body}\n</html>\n"
    )
