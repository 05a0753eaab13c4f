"""Where a callback gets features from: any submodule of any LightningModule, or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule
from vclr_lightning.core.random import random_state_kept
from vclr_lightning.evaluation.encoders import evaluation_mode
from vclr_lightning.evaluation.layer_maps import first_tensor
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.functional.precision import full

Views = Literal["outside", "inside"]
Feature = str | Callable[[LightningModule, Any], Tensor | Sequence[Tensor]]
Features = Feature | Sequence[str] | Mapping[str, Feature]

USUAL = ("query_encoder", "backbone", "encoder", "encoder_q", "online_encoder", "trunk", "net")
"""Names under which a module's network is looked for where none is given."""


class FeatureSource:
    """Features of a batch by name, without gradient: what submodules returned, or functions return.

    Between :meth:`start` and :meth:`take`, everything that the named submodules return is kept, of
    several calls one after another. So features of a training step cost no forward of their own.

    Args:
        features: name of a submodule, as in ``module.named_modules()``; several names, each a
            layer; a function of the LightningModule and the batch, called in evaluation mode; a
            mapping by name of either. ``None`` for the first of :data:`USUAL` that there is.
        views: how rows are ordered where a submodule takes several views of a sample in one call:
            ``"outside"``: all samples' first views, then all second ones, as of
            ``torch.cat([first, second])``; ``"inside"``: the views of a sample side by side.
        tokens: keep the tokens ``(N, T, F)`` of a transformer, and positions of a map; by default
            they are averaged.

    Shape:
        - a submodule returns features ``(N, F)``, tokens ``(N, T, F)``, or a map ``(N, F, ...)``
          of two or three dimensions; of a tuple, the first counts
        - a function returns any of these for the batch's ``B`` samples, or a sequence of them, one
          for each view
        - :meth:`take` returns ``(B, V, F)`` with V views, or ``(B, V, T, F)``, at least float32

    Example:
        >>> module = LightningModule()
        >>> module.encoder = nn.Linear(3, 5)
        >>> source = FeatureSource("encoder")
        >>> source.attach(module)
        >>> source.start()
        >>> views = module.encoder(torch.zeros(8, 3)), module.encoder(torch.ones(8, 3))
        >>> source.take(module, batch=None, samples=8)["encoder"].shape
        torch.Size([8, 2, 5])
        >>> source.detach()
    """

    def __init__(
        self, features: Features | None = None, *, views: Views = "outside", tokens: bool = False
    ) -> None:
        if views not in get_args(Views):
            raise UserError(f"views={views!r} of features must be {' or '.join(get_args(Views))}")
        self.sources = _by_name(features)
        self.views = views
        self.tokens = tokens
        self._handles: list[Any] = []
        self._kept: dict[str, list[Tensor]] | None = None
        self._when: Callable[[], bool] = _always

    @property
    def names(self) -> list[str]:
        """Names of the features; known once attached."""
        return list(self.sources)

    def attach(self, module: nn.Module) -> None:
        """Listen to the submodules.

        Raises:
            UserError: there is no such submodule.
        """
        self.detach()
        if not self.sources:
            self.sources = {(name := _usual(module)): name}
        for name, source in self.sources.items():
            if isinstance(source, str):
                keep = partial(self._keep, name)
                self._handles.append(find_layer(module, source).register_forward_hook(keep))

    def detach(self) -> None:
        """Listen no longer, and forget."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._kept = [], None

    def start(self, when: Callable[[], bool] | None = None) -> None:
        """Forget what was kept, and keep what comes while ``when()`` is true."""
        self._kept, self._when = {}, when or _always

    def take(self, module: LightningModule, batch: Any, *, samples: int) -> dict[str, Tensor]:
        """Return the features of a batch of ``samples`` samples, and forget them.

        Raises:
            UserError: a submodule was not called, or its rows are not those of the samples.
        """
        kept, self._kept = self._kept or {}, None
        found = {}
        for name, source in self.sources.items():
            if isinstance(source, str):
                found[name] = self._arranged(name, kept.get(name, []), samples)
                continue
            with random_state_kept(), evaluation_mode(module), torch.no_grad():
                value = source(module, batch)
            parts = [value] if isinstance(value, Tensor) else list(value)
            rows = [self._rows(name, part.detach()) for part in parts]
            found[name] = self._arranged(name, rows, samples)
        return found

    def run(
        self, module: LightningModule, batch: Any, *, samples: int, forward: Callable[..., Any]
    ) -> dict[str, Tensor]:
        """Return the features of a batch that ``forward(module, batch)`` puts through the network.

        In evaluation mode; modes, random numbers and buffers stay as they were.
        """
        self.start()
        if any(isinstance(source, str) for source in self.sources.values()):
            with random_state_kept(), evaluation_mode(module), torch.no_grad():
                forward(module, batch)
        return self.take(module, batch, samples=samples)

    @torch.no_grad()
    def _keep(self, name: str, _: nn.Module, inputs: Any, output: Any) -> None:
        # Not what activation checkpointing computes once more in the backward pass.
        forward = torch._C._current_graph_task_id() < 0
        if self._kept is not None and forward and self._when():
            self._kept.setdefault(name, []).append(self._rows(name, first_tensor(output)))

    def _rows(self, name: str, x: Any) -> Tensor:
        """Copy an output: what follows may work in place."""
        if not isinstance(x, Tensor) or x.ndim not in (2, 3, 4, 5):
            kind = str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
            raise UserError(
                f"{name} gives {kind}, neither features (N, F), tokens (N, T, F) nor a map "
                "(N, F, ...); name another submodule, or give a function (features=)"
            )
        rows: Tensor = full(x.detach())
        rows = rows[:, None] if rows.ndim == 2 else rows if rows.ndim == 3 else rows.flatten(2).mT
        return rows.clone() if self.tokens else rows.mean(dim=1)

    def _arranged(self, name: str, parts: list[Tensor], samples: int) -> Tensor:
        if not parts:
            raise UserError(f"{name} was not called in this step; name another submodule")
        views = []
        for rows in parts:
            if not samples or len(rows) % samples:
                raise UserError(
                    f"{name} gives {len(rows)} rows for {samples} samples; name another submodule, "
                    "or give a function (features=)"
                )
            inside = rows.view(samples, len(rows) // samples, *rows.shape[1:])
            outside = rows.view(len(rows) // samples, samples, *rows.shape[1:]).transpose(0, 1)
            views.append(outside if self.views == "outside" else inside)
        return torch.cat(views, dim=1)


def _always() -> bool:
    return True


def _by_name(features: Features | None) -> dict[str, Feature]:
    if features is None:
        return {}
    if isinstance(features, Mapping):
        return dict(features)
    if isinstance(features, str):
        return {features: features}
    if isinstance(features, Iterable):
        return {name: name for name in features}
    return {"features": features}


def _usual(module: nn.Module) -> str:
    name = next((name for name in USUAL if isinstance(getattr(module, name, None), nn.Module)), "")
    if not name:
        children = ", ".join(name for name, _ in module.named_children())
        raise UserError(
            f"{type(module).__name__} has no submodule named {', '.join(USUAL[:3])} or the like; "
            f"name the one whose output to read (features=), such as one of {children or 'none'}"
        )
    return name
