"""Plan which clips to encode, so that every clip goes through each encoder at most once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request

FEATURES, MAPS = "features", "maps"
"""Kinds of outputs of an encoder; others are names of layers, after :data:`LAYER`."""

LAYER = "@"


@dataclass(frozen=True)
class ClipSource:
    """Clips that are encoded: all of some views, or one named selection of them."""

    views: tuple[str, ...]
    rows: str | None = None


@dataclass(frozen=True)
class Forward:
    """One BatchNorm batch of an encoder, of all clips of its sources."""

    encoder: str
    name: str  # of the BatchNorm batch, by which its shuffle is drawn
    sources: tuple[ClipSource, ...]
    kinds: tuple[str, ...] = (FEATURES,)  # what is requested: features, maps, outputs of layers


@dataclass(frozen=True)
class Read:
    """Where the features of a request are."""

    forward: int  # position in EncodingPlan.forwards
    sources: tuple[int, ...]  # positions in that forward's sources, concatenated
    rows: str | None  # name of the selection after encoding, if any
    kind: str  # of the output
    averaged: bool = False  # over its positions


@dataclass(frozen=True)
class EncodingPlan:
    """All forwards of a step, and where each (objective, request) reads."""

    forwards: tuple[Forward, ...]
    reads: Mapping[tuple[str, str], Read]

    @property
    def views(self) -> frozenset[str]:
        """Names of all views that are read."""
        return frozenset(view for _, view in self.encoded_views)

    @property
    def encoded_views(self) -> frozenset[tuple[str, str]]:
        """Encoders, and views that each encodes."""
        return frozenset(
            (forward.encoder, view)
            for forward in self.forwards
            for source in forward.sources
            for view in source.views
        )


def plan_encodings(
    requests: Mapping[str, Mapping[str, Request]],
    *,
    encoders: Sequence[str] = ("key", "query"),
    apart: Collection[str] = (),
) -> EncodingPlan:
    """Plan the union of the objectives' requests.

    A view requested as a whole is encoded as a whole, and selections are taken from its features.
    Otherwise only the selected clips are encoded; selections of different names are assumed to be
    different clips.

    Args:
        requests: by objective, then by the request's name.
        encoders: their names in the order in which they run: momentum encoders first, before
            activations are kept for the gradient.
        apart: encoders for which the clips of each request are a BatchNorm batch of their own;
            otherwise, all clips of an encoder are one. Equal requests are encoded once in either
            case.

    Raises:
        UserError: a request names an unknown encoder.

    Example:
        >>> x1 = Request("query", ("anchor",), rows="x1")
        >>> tuple_ = Request("query", ("anchor",))
        >>> plan = plan_encodings({"inter": {"query": x1}, "video": {"query": tuple_}})
        >>> [forward.sources for forward in plan.forwards]
        [(ClipSource(views=('anchor',), rows=None),)]
        >>> plan.reads["inter", "query"].rows
        'x1'
    """
    wanted: dict[tuple[str, str], list[tuple[tuple[str, str], Request]]] = {}
    for objective, named in requests.items():
        for name, request in named.items():
            if request.encoder not in encoders:
                raise UserError(
                    f"{objective}.{name} requests the encoder {request.encoder!r}; there are "
                    f"{', '.join(encoders)}"
                )
            batch = _name(request) if request.encoder in apart else "all"
            wanted.setdefault((request.encoder, batch), []).append(((objective, name), request))

    forwards: list[Forward] = []
    reads: dict[tuple[str, str], Read] = {}
    for encoder, batch in sorted(wanted, key=lambda key: encoders.index(key[0])):
        asked = wanted[encoder, batch]
        sources = _sources(request for _, request in asked)
        for where, request in asked:
            reads[where] = _read(request, sources, forward=len(forwards))
        kinds = dict.fromkeys(_kind(request) for _, request in asked)
        forwards.append(Forward(encoder, batch, sources, tuple(kinds)))
    return EncodingPlan(tuple(forwards), reads)


def _kind(request: Request) -> str:
    if request.layer is not None:
        return LAYER + request.layer
    return FEATURES if request.pooled else MAPS


def _name(request: Request) -> str:
    return "+".join(request.views) + ("" if request.rows is None else f":{request.rows}")


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
        found: tuple[int, ...] = (sources.index(selection),)
        rows = None
    else:
        found = tuple(sources.index(ClipSource((view,))) for view in request.views)
        rows = request.rows
    averaged = request.pooled and request.layer is not None
    return Read(forward, found, rows, _kind(request), averaged)
