"""Plan which clips to encode, so that every clip goes through each encoder at most once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request

ENCODERS = ("key", "query")
"""In the order they run: the key encoder first, before activations are kept for the gradient."""


@dataclass(frozen=True)
class ClipSource:
    """Clips that are encoded: all of some views, or one named selection of them."""

    views: tuple[str, ...]
    rows: str | None = None


@dataclass(frozen=True)
class Forward:
    """One BatchNorm batch of an encoder, of all clips of its sources."""

    encoder: str  # "query" or "key"
    name: str  # of the BatchNorm batch, by which its shuffle is drawn
    sources: tuple[ClipSource, ...]
    apart: bool = False  # every clip is a BatchNorm batch of its own, over the videos
    features: bool = True  # whether pooled features are requested
    maps: bool = False  # whether maps before pooling are requested


@dataclass(frozen=True)
class Read:
    """Where the features of a request are."""

    forward: int  # position in EncodingPlan.forwards
    sources: tuple[int, ...]  # positions in that forward's sources, concatenated
    rows: str | None  # name of the selection after encoding, if any
    pooled: bool  # pooled features, or maps


@dataclass(frozen=True)
class EncodingPlan:
    """All forwards of a step, and where each (objective, request) reads."""

    forwards: tuple[Forward, ...]
    reads: Mapping[tuple[str, str], Read]

    @property
    def views(self) -> frozenset[str]:
        """Names of all views that are read."""
        return frozenset(
            view for forward in self.forwards for source in forward.sources for view in source.views
        )

    def uses(self, encoder: str) -> bool:
        """Return whether anything goes through ``encoder``."""
        return any(forward.encoder == encoder for forward in self.forwards)


def plan_encodings(
    requests: Mapping[str, Mapping[str, Request]], *, share_encodings: bool = True
) -> EncodingPlan:
    """Plan the union of the objectives' requests.

    A view requested as a whole is encoded as a whole, and selections are taken from its features.
    Otherwise only the selected clips are encoded; selections of different names are assumed to be
    different clips.

    Args:
        requests: by objective, then by the request's name.
        share_encodings: all clips of an encoder are one BatchNorm batch; otherwise those of each
            request are, as in the released code. Equal requests are encoded once in either case.

    Raises:
        UserError: a request names an unknown encoder, or no view.

    Example:
        >>> x1 = Request("query", ("anchor",), rows="x1")
        >>> tuple_ = Request("query", ("anchor",))
        >>> plan = plan_encodings({"inter": {"query": x1}, "video": {"query": tuple_}})
        >>> [forward.sources for forward in plan.forwards]
        [(ClipSource(views=('anchor',), rows=None),)]
        >>> plan.reads["inter", "query"].rows
        'x1'
    """
    wanted: dict[tuple[str, str, bool], list[tuple[tuple[str, str], Request]]] = {}
    for objective, named in requests.items():
        for name, request in named.items():
            _check(request, f"{objective}.{name}")
            batch = ("all", False) if share_encodings else (_name(request), request.apart)
            wanted.setdefault((request.encoder, *batch), []).append(((objective, name), request))

    forwards: list[Forward] = []
    reads: dict[tuple[str, str], Read] = {}
    for encoder, batch_name, apart in sorted(wanted, key=lambda key: ENCODERS.index(key[0])):
        asked = wanted[encoder, batch_name, apart]
        sources = _sources(request for _, request in asked)
        for where, request in asked:
            reads[where] = _read(request, sources, forward=len(forwards))
        pooled = {request.pooled for _, request in asked}
        forwards.append(
            Forward(
                encoder, batch_name, sources, apart, features=True in pooled, maps=False in pooled
            )
        )
    return EncodingPlan(tuple(forwards), reads)


def _name(request: Request) -> str:
    return "+".join(request.views) + ("" if request.rows is None else f":{request.rows}")


def _check(request: Request, where: str) -> None:
    if request.encoder not in ENCODERS:
        raise UserError(
            f"{where} requests the encoder {request.encoder!r}; there are 'query' and 'key'"
        )
    if not request.views:
        raise UserError(f"{where} names no view to read")


def _sources(requests: Iterable[Request]) -> tuple[ClipSource, ...]:
    requests = list(requests)
    whole = {view: None for request in requests if request.rows is None for view in request.views}
    # A selection that touches a whole view is taken after encoding, so the rest is needed too.
    growing = True
    while growing:
        touching = [r for r in requests if r.rows is not None and whole.keys() & set(r.views)]
        missing = {view: None for r in touching for view in r.views if view not in whole}
        whole |= missing
        growing = bool(missing)
    selected = {
        ClipSource(request.views, request.rows): None
        for request in requests
        if request.rows is not None and request.views[0] not in whole
    }
    return (*(ClipSource((view,)) for view in whole), *selected)


def _read(request: Request, sources: tuple[ClipSource, ...], *, forward: int) -> Read:
    selection = ClipSource(request.views, request.rows)
    if request.rows is not None and selection in sources:
        return Read(forward, (sources.index(selection),), None, request.pooled)
    whole = tuple(sources.index(ClipSource((view,))) for view in request.views)
    return Read(forward, whole, request.rows, request.pooled)
