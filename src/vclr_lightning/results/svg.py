"""Drawings by matplotlib as SVG in the colours of the page around them, or as PNG."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Names of the page's CSS variables; in an SVG they replace the colours.
COLOURS = {
    "ink": "#1d2327",
    "soft": "#5d676e",
    "faint": "#e3e5e3",
    "paper": "#fdfdfb",
    "right": "#1a7f4b",
    "wrong": "#b83a3a",
    **dict(
        zip(
            ("c0", "c1", "c2", "c3", "c4", "c5"),
            ("#0f766e", "#98a1a6", "#b7791f", "#6d5bb0", "#b4536b", "#3b6fb6"),
            strict=True,
        )
    ),
}
_INVALID = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # in XML, even escaped
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "vclr",  # the same figure is the same file
    "text.parse_math": False,  # names may hold a $
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.spines.bottom": False,
    "axes.axisbelow": True,
    "axes.labelcolor": COLOURS["soft"],
    "axes.edgecolor": COLOURS["faint"],
    "grid.color": COLOURS["faint"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
}


@dataclass
class Drawn:
    """A drawing and what pointing at its parts shows.

    Attributes:
        title: heading of the drawing; may be empty.
        drawing: the figure of matplotlib.
        tooltips: of each shape, by ``gid`` of the artist.
        fixed: whether the drawing keeps its size on wide pages.
    """

    title: str
    drawing: Drawing
    tooltips: dict[str, list[str]] = field(default_factory=dict)
    fixed: bool = False

    def tip(self, artist: Any, *titles: str) -> None:
        """Show a title for each shape of an artist."""
        gid = f"tip{len(self.tooltips)}"
        artist.set_gid(gid)
        self.tooltips[gid] = list(titles)


def svg(drawn: Drawn) -> str:
    """Return a drawing as an ``<svg>`` element for a page."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled():
        drawn.drawing.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = _printable(file.getvalue())
    text = re.sub(r" font-family: [^;\"]*;?", "", text)  # the page has its own
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    used = {"", *re.findall(r"#([\w-]+)", text)}
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: value for key, value in parent.attrib.items()}
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):  # it would style the page
                parent.remove(child)
        if titles := drawn.tooltips.get(parent.get("id", "")):
            shapes = [one for one in parent.iter() if one.tag.endswith(("}path", "}use"))]
            # the first path of a collection of equal shapes is their definition
            for shape, title in zip(shapes[-len(titles) :], titles, strict=True):
                shape.insert(0, tip := ElementTree.Element("title"))
                tip.text = title
        if parent.get("id", "") not in used:
            del parent.attrib["id"]
    width, _ = (float(root.attrib.pop(side).removesuffix("pt")) for side in ("width", "height"))
    root.attrib |= {"role": "img", "aria-label": drawn.title}
    if drawn.fixed:
        root.set("style", f"max-width: {1.6 * width:.0f}px")
    return _printable(ElementTree.tostring(root, encoding="unicode"))


def _printable(text: str) -> str:
    return _INVALID.sub("\N{REPLACEMENT CHARACTER}", text)


def svg_file(drawn: Drawn) -> str:
    """Return a drawing as the content of an SVG file, on the page's background."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled():
        paper = COLOURS["paper"]
        drawn.drawing.savefig(file, format="svg", facecolor=paper, metadata=nothing)
    return _printable(file.getvalue())


def png(drawn: Drawn) -> bytes:
    """Return a drawing as the content of a PNG file."""
    file = io.BytesIO()
    with styled():
        drawn.drawing.savefig(file, format="png", dpi=200, facecolor=COLOURS["paper"])
    return file.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """Within it, matplotlib draws in the page's style."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it says what it caches
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that matplotlib's font lacks, not the page's
        yield
