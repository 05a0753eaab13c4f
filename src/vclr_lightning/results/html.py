"""A result as an HTML page: one file that needs no network, from a Jinja2 template."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from vclr_lightning.core.files import replacing
from vclr_lightning.results import figures, svg
from vclr_lightning.results.value import Result, bracket, percent
from vclr_lightning.results.visuals import Embedded, Picture

if TYPE_CHECKING:
    import jinja2
    from torch import Tensor

_TALL = 30  # rows of a table, from which it scrolls


def write_page(result: Result, directory: Path) -> Path:
    """Write ``result.page`` in one step.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path := directory / result.page) as sink:
        sink.write(render(result, directory).encode())
    return path


def render(result: Result, directory: Path = Path()) -> str:
    """Return the page; what is left empty is not shown.

    Args:
        result: what to show.
        directory: folder of the page, which embedded pages are below.

    Example:
        >>> page = render(Result(title="Tom & Jerry"))
        >>> "<h1>Tom &amp; Jerry</h1>" in page, page.count("<h2>")
        (True, 0)
    """
    template = _environment().get_template("page.html")
    return template.render(result=result, directory=directory)


@cache
def _environment() -> jinja2.Environment:
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("vclr_lightning.results", "")
    found = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "bracket": bracket}
    found.filters["kind"] = lambda item: type(item).__name__
    found.globals |= {
        "style": Markup(loader.get_source(found, "style.css")[0]),
        "draw": figures.draw,
        "svg": lambda drawn: Markup(svg.svg(drawn)),
        "sources": sources,
        "embedded": embedded,
        "tall": _TALL,
    }
    return found


def sources(picture: Picture, *, lossless: bool = False) -> list[str]:
    """Return each frame of a picture as the ``src`` of an ``<img>``.

    Example:
        >>> import torch
        >>> one, = sources(Picture(frames=torch.zeros(3, 8, 8, dtype=torch.uint8)))
        >>> one[:23]
        'data:image/jpeg;base64,'
    """
    if picture.frames is None:
        return []
    frames = picture.frames if picture.frames.ndim == 4 else picture.frames[None]
    return [_source(frame, lossless) for frame in frames]


def _source(frame: Tensor, lossless: bool) -> str:
    from PIL import Image

    kind, options = ("PNG", {}) if lossless else ("JPEG", {"quality": 90, "subsampling": 0})
    file = io.BytesIO()
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().cpu().numpy())
    image.save(file, kind, optimize=lossless, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def embedded(item: Embedded, directory: Path) -> str:
    """Return another page, whose links lead from its own folder and open in a window of theirs."""
    page = (directory / item.page).read_text("utf-8", errors="replace")
    folder = "/".join(map(quote, item.page.parent.parts))
    return page.replace("<title>", f'<base href="{folder}/" target="_blank">\n<title>', 1)
