"""The output of any layer as a map ``(N, C, h, w)`` or ``(N, C, t, h, w)``, whatever its layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError

_IMAGES = 4  # dimensions of a batch of them
_CLIPS = 5
_TOKENS = 3


@dataclass(frozen=True)
class MapLayout:
    """How a layer's output holds a map.

    Attributes:
        kind: ``"first"`` or ``"last"``, of the channels; ``"tokens"`` on a grid after ``prefix``
            others; ``"frames"`` of clips, one after another, channels first.
        grid: positions, or of ``frames`` how many to a clip.
        prefix: tokens before those of the grid, such as a class token.
    """

    kind: Literal["first", "last", "tokens", "frames"]
    grid: tuple[int, ...] = ()
    prefix: int = 0

    def __call__(self, output: Tensor) -> Tensor:
        """Return the output, or a gradient of its shape, with channels second.

        Example:
            >>> import torch
            >>> layout = MapLayout("tokens", grid=(1, 2), prefix=1)
            >>> layout(torch.tensor([[[9.0], [1.0], [2.0]]])).tolist()
            [[[[1.0, 2.0]]]]
        """
        if self.kind == "last":
            return output.movedim(-1, 1)
        if self.kind == "tokens":
            tokens = output[:, self.prefix :].transpose(1, 2)
            return tokens.reshape(*tokens.shape[:2], *self.grid)
        if self.kind == "frames":
            return output.reshape(-1, *self.grid, *output.shape[1:]).transpose(1, 2)
        return output


@dataclass
class WatchedForward:
    """What the last forward of a network was given, and said, that determines layouts.

    Attributes:
        count: N, images or clips.
        size: ``(H, W)`` or ``(T, H, W)``.
        grid: of tokens, as some networks hand it from layer to layer.
        prefix: tokens before those of the grid, where the network says so.
        channels_last: whether maps are, as timm's networks say; ``None`` where nothing is said.
        tokens: whether three dimensions are tokens: of a network with attention.
    """

    count: int = 0
    size: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()
    prefix: int | None = None
    channels_last: bool | None = None
    tokens: bool = True

    def seen(self) -> WatchedForward:
        """Return a copy, of this moment."""
        return replace(self)

    def layout(self, output: Tensor, name: str) -> MapLayout:
        """Return the layout of a layer's output.

        Rows and columns of a map are in the proportion of the input's, and no more; a grid of
        tokens is one of square patches. Where that admits two layouts, none is chosen, unless the
        network says which, or has no attention: then channels are first.

        Raises:
            UserError: it is no map, or its layout is ambiguous.

        Example:
            >>> import torch
            >>> watched = WatchedForward(count=2, size=(64, 64))
            >>> watched.layout(torch.zeros(2, 8, 8, 96), "layers").kind
            'last'
            >>> watched.layout(torch.zeros(2, 17, 96), "blocks")
            MapLayout(kind='tokens', grid=(4, 4), prefix=1)
        """
        found = list(dict.fromkeys(self._candidates(tuple(output.shape))))
        if len(found) == 1:
            return found[0]
        wanted = "(N, C, t, h, w) of clips" if len(self.size) > 2 else "(N, C, h, w) of pictures"
        what = "may be a map in several layouts" if found else "is no map"
        raise UserError(
            f"layer={name} returns {tuple(output.shape)}, which {what} {wanted}, nor tokens on a "
            "grid; take another layer, before any pooling"
        )

    def _candidates(self, shape: tuple[int, ...]) -> Iterator[MapLayout]:
        dims = len(shape)
        if dims in (_IMAGES, _CLIPS) and (not self.size or dims == len(self.size) + 2):
            if not self.size or shape[0] == self.count:
                first, last = self._fits(shape[2:]), bool(self.size) and self._fits(shape[1:-1])
                if first and last and self.channels_last is not None:
                    first, last = not self.channels_last, self.channels_last
                if first or not last:
                    yield MapLayout("first")
                if last:
                    yield MapLayout("last")
        elif dims == _IMAGES and len(self.size) == _TOKENS:
            frames = shape[0] // max(self.count, 1)
            if frames > 1 and frames * self.count == shape[0] and frames <= self.size[0]:
                yield MapLayout("frames", grid=(frames,))
        elif dims == _TOKENS and shape[0] == self.count and self.tokens:
            yield from self._grids(shape[1])

    def _grids(self, length: int) -> Iterator[MapLayout]:
        """Yield how many tokens may lie on a grid."""
        if self.grid and 0 <= (prefix := length - math.prod(self.grid)) <= _TOKENS * _CLIPS:
            yield MapLayout("tokens", grid=self.grid, prefix=prefix)
            return
        for prefix in (0, 1) if self.prefix is None else (self.prefix,):
            for grid in self._divisions(length - prefix):
                yield MapLayout("tokens", grid=grid, prefix=prefix)

    def _divisions(self, positions: int) -> Iterator[tuple[int, ...]]:
        """Yield the grids of this many positions that square patches of the input make."""
        times = self.size[:-2]
        for patch in range(1, max(self.size[-2:], default=0)):
            rows, columns = (math.ceil(side / patch) for side in self.size[-2:])
            frames, left = divmod(positions, rows * columns)
            if left or not frames:
                continue
            if not times and frames == 1:
                yield rows, columns
            elif times and any(math.ceil(times[0] / k) == frames for k in range(1, times[0] + 1)):
                yield frames, rows, columns

    def _fits(self, grid: Sequence[int]) -> bool:
        """Whether a grid may be that of the input's positions, some joined."""
        if not self.size:
            return True
        if any(positions > size for positions, size in zip(grid, self.size, strict=True)):
            return False
        ratios = [size / positions for size, positions in zip(self.size, grid, strict=True)][-2:]
        height, width = self.size[-2:]
        return (grid[-2] == grid[-1]) if height == width else max(ratios) < 2 * min(ratios)


@contextmanager
def watched_forward(network: nn.Module) -> Iterator[WatchedForward]:
    """Yield what the last forward within the block was given and said.

    Args:
        network: called within the block, with images or clips; ``num_prefix_tokens`` of it, or of
            the network that it wraps, says how many tokens stand before those of positions.
    """
    net = getattr(network, "net", network)  # in a wrapper
    prefix, order = (getattr(net, name, None) for name in ("num_prefix_tokens", "output_fmt"))
    attends = any(map(is_attention, net.modules()))
    watched = WatchedForward(
        prefix=prefix if isinstance(prefix, int) else None,
        channels_last=str(order) == "NHWC" if order is not None or not attends else None,
        tokens=attends or isinstance(prefix, int),
    )

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim in (_IMAGES, _CLIPS):
            watched.count, watched.size = len(inputs[0]), tuple(inputs[0].shape[2:])
            watched.grid = ()

    def hear(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for value in inputs[1:]:
            if _is_grid(value, len(watched.size)):
                watched.grid = tuple(value)

    handles = [network.register_forward_pre_hook(begin)]
    handles += [m.register_forward_pre_hook(hear) for m in network.modules() if m is not network]
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()


def is_attention(module: nn.Module) -> bool:
    """Whether a layer is one of attention over positions, by the name of its class.

    Example:
        >>> is_attention(nn.MultiheadAttention(4, 1)), is_attention(nn.Linear(4, 4))
        (True, False)
    """
    name = type(module).__name__.lower()
    return ("attention" in name or "attn" in name) and "pool" not in name


def _is_grid(value: object, dims: int) -> bool:
    sized = isinstance(value, tuple | list) and len(value) == dims
    return sized and all(isinstance(number, int) for number in value)  # type: ignore[attr-defined]


def first_tensor(output: Any) -> Any:
    """Return a layer's output, or the first of several: tokens that come with their grid."""
    return output[0] if isinstance(output, tuple | list) and output else output
