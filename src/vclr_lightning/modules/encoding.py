"""Execute an encoding plan: read clips from a batch, encode them, distribute the features."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch
from vclr_lightning.evaluation.layer_maps import WatchedForward, first_tensor, watched_forward
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.functional.order import reorder
from vclr_lightning.models.backbone import Backbone
from vclr_lightning.modules.encoding_plan import (
    FEATURES,
    LAYER,
    MAPS,
    ClipSource,
    EncodingPlan,
    Forward,
)
from vclr_lightning.modules.input_pixels import Pixels


def read_clips(batch: Batch, source: ClipSource) -> Tensor:
    """Return the clips of a source, ``(B, n, C, T, H, W)``.

    Raises:
        UserError: the batch has none of its views, or not its selection.
    """
    # A view of 0 clips is not part of a batch.
    views = [batch["views"][view] for view in source.views if view in batch["views"]]
    if not views:
        raise UserError(
            f"the batch has no view {' or '.join(source.views)}, only "
            f"{', '.join(sorted(batch['views']))}; give the data module a sampler that yields it"
        )
    clips = joined(views, dim=1)
    return clips if source.rows is None else reorder(clips, _rows(batch, source.rows))


INPUT = ":input"
"""Follows the name of a layer whose input is read."""

Encoded = Mapping[str, Tensor]
"""By kind, as far as requested: ``features`` ``(B, n, F)``, ``maps`` ``(B, n, F, ...)``, and
outputs of layers by ``@`` and the layer's name, ``(B, n, C, ...)``."""


def encode_plan(
    plan: EncodingPlan, batch: Batch, *, encode: Callable[[Forward, Tensor], Encoded]
) -> dict[str, dict[str, Tensor]]:
    """Run all forwards of ``plan``, and return each objective's features by request.

    Args:
        plan: what to encode.
        batch: where the clips come from.
        encode: takes a forward and its clips ``(B, n, C, T, H, W)``, which are one BatchNorm
            batch; returns what the forward requests.
    """
    encoded = [_encode_forward(forward, batch, encode) for forward in plan.forwards]
    features: dict[str, dict[str, Tensor]] = {}
    for (objective, name), read in plan.reads.items():
        found = encoded[read.forward]
        parts = _join([found[i][read.kind] for i in read.sources if i in found])
        if read.rows is not None:
            parts = reorder(parts, _rows(batch, read.rows))
        if read.averaged and parts.ndim > 3:
            parts = parts.flatten(3).mean(3)
        features.setdefault(objective, {})[name] = parts
    return features


def through(
    encoder: nn.Module, clips: Tensor, *, pixels: Pixels, chunk: int | None = None
) -> Tensor:
    """Return an encoder's features of clips, ``(B, n, F)``; see :func:`encoded`."""
    return encoded(encoder, clips, pixels=pixels, chunk=chunk)["features"]


def encoded(
    encoder: nn.Module,
    clips: Tensor,
    *,
    pixels: Pixels,
    kinds: Collection[str] = (FEATURES,),
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Return an encoder's outputs of clips, by kind; see :data:`Encoded`.

    ``chunk`` is the number of clips per forward of the encoder. Features are bit-equal whatever
    else is requested.

    Shape: ``(B, n, C, T, H, W)`` uint8 to ``(B, n, F)`` and ``(B, n, F, ...)``.
    """
    dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
    flat = clips.flatten(0, 1)
    parts = [
        _encoded(encoder, pixels(part, dtype), kinds)
        for part in torch.split(flat, chunk or max(1, len(flat)))
    ]
    whole = {kind: joined([part[kind] for part in parts]) for kind in parts[0]}
    return {kind: x.view(*clips.shape[:2], *x.shape[1:]) for kind, x in whole.items()}


def _encoded(encoder: Any, x: Tensor, kinds: Collection[str]) -> dict[str, Tensor]:
    layers = {kind: kind.removeprefix(LAYER) for kind in kinds if kind.startswith(LAYER)}
    features, maps = FEATURES in kinds or MAPS not in kinds, MAPS in kinds
    if not layers:
        return _outputs(encoder, x, features=features, maps=maps)
    with layer_outputs(encoder, x, layers.values()) as outputs:
        found = _outputs(encoder, x, features=features, maps=maps)
    return found | {kind: outputs(name) for kind, name in layers.items()}


@contextmanager
def layer_outputs(
    encoder: nn.Module, x: Tensor, names: Iterable[str]
) -> Iterator[Callable[[str], Tensor]]:
    """Yield a function that returns what a layer returned, or with ``:input`` took, last.

    Maps of ``x`` have channels second, and tokens are on their grid.

    Raises:
        UserError: there is no such layer; from the function, the layer was not called, returned
            neither features nor a map, or its output was overwritten by a later layer.

    Example:
        >>> net, x = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(True)), torch.zeros(2, 3, 8, 8)
        >>> with layer_outputs(net, x, ["1:input"]) as outputs:
        ...     _ = net(x)
        >>> outputs("1:input").shape
        torch.Size([2, 5, 6, 6])
    """
    kept: dict[str, tuple[Any, int, WatchedForward]] = {}

    def keep(name: str, value: Any) -> None:
        first = first_tensor(value)
        kept[name] = first, getattr(first, "_version", 0), watched.seen()

    def before(name: str, _: nn.Module, inputs: Any) -> None:
        first = inputs[0] if inputs else None
        # A copy: the layer itself may work in place.
        keep(name, first.clone() if isinstance(first, Tensor) else first)

    def after(name: str, _: nn.Module, inputs: Any, found: Any) -> None:
        keep(name, found)

    def output(name: str) -> Tensor:
        value, version, seen = kept.get(name, (None, 0, watched))
        if not isinstance(value, Tensor):
            what = f"gives a {type(value).__name__}" if name in kept else "is not called"
            raise UserError(f"the layer {name} {what} in {type(encoder).__name__}; read another")
        if value._version != version:
            raise UserError(
                f"the output of layer {name} is overwritten by a later layer that works in place; "
                "read the module around both"
            )
        return value if value.ndim == 2 else seen.layout(value, name)(value)

    with watched_forward(encoder) as watched, ExitStack() as handles:
        watched.count, watched.size = len(x), tuple(x.shape[2:])
        for name in dict.fromkeys(names):
            layer = find_layer(encoder, name.removesuffix(INPUT))
            if name.endswith(INPUT):
                handles.callback(layer.register_forward_pre_hook(partial(before, name)).remove)
            else:
                handles.callback(layer.register_forward_hook(partial(after, name)).remove)
        yield output


def _outputs(encoder: Any, x: Tensor, *, features: bool, maps: bool) -> dict[str, Tensor]:
    if not maps:
        return {FEATURES: encoder(x)}
    if not features:
        return {MAPS: encoder.forward_map(x)}
    if type(encoder).forward is Backbone.forward:
        found = encoder.forward_map(x)
        return {FEATURES: encoder.pool(found), MAPS: found}
    # Features of other networks need not be the pooled map.
    return {FEATURES: encoder(x), MAPS: second_pass(encoder, x)}


def second_pass(encoder: Any, x: Tensor) -> Tensor:
    """Return the map of an encoder that was called before, without a change of its state."""
    own = [(layer, dict(layer._buffers)) for layer in encoder.modules()]
    for layer, buffers in own:
        layer._buffers.update({n: b if b is None else b.clone() for n, b in buffers.items()})
    try:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            found: Tensor = encoder.forward_map(x)
            return found
    finally:
        for layer, buffers in own:
            layer._buffers.update(buffers)


def _encode_forward(
    forward: Forward, batch: Batch, encode: Callable[[Forward, Tensor], Encoded]
) -> Mapping[int, Encoded]:
    """Encode the sources of a forward, by position; clips of one shape go together."""
    clips = {
        i: read_clips(batch, source)
        for i, source in enumerate(forward.sources)
        if source.rows is not None or source.views[0] in batch["views"]
    }
    found: dict[int, dict[str, Tensor]] = {}
    for shape in dict.fromkeys(some.shape[2:] for some in clips.values()):
        members = [i for i, some in clips.items() if some.shape[2:] == shape]
        together = _join([clips[i] for i in members])
        counts = [clips[i].shape[1] for i in members]
        for kind, values in encode(forward, together).items():
            for i, part in zip(members, torch.split(values, counts, dim=1), strict=True):
                found.setdefault(i, {})[kind] = part
    return found


def joined(parts: Sequence[Tensor], *, dim: int = 0) -> Tensor:
    """Concatenate tensors; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _join(parts: Sequence[Tensor]) -> Tensor:
    if not parts:
        raise UserError(
            "an objective reads only views that the batch does not hold; give the data module a "
            "sampler that yields them"
        )
    return joined(parts, dim=1)


def _rows(batch: Batch, name: str) -> Tensor:
    rows = batch["rows"]
    if name not in rows:
        raise UserError(
            f"the batch has no selection {name!r} of clips, only {', '.join(sorted(rows))}; "
            "give the data module a sampler that yields it"
        )
    return rows[name]
