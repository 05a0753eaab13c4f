"""The interface of a backbone, and a wrapper that gives it to any network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import IMAGENET_MEAN, IMAGENET_STD
from vclr_lightning.models.constructor_calls import import_path, plain_arguments


class Backbone(nn.Module):
    """A network from images or clips to features.

    Any ``nn.Module`` with these attributes and methods is a backbone; it need not derive from this
    class, which also records the arguments of its subclasses' constructors. One without them is
    adapted by :class:`WrappedBackbone`.

    Attributes:
        num_features: F, the number of features of an image or clip.
        clip_dims: 2 for a 2D network, of images; 3 for a 3D network, of clips.
        pixel_mean: mean of each channel for normalisation, in 0 to 1; ImageNet's by default.
        pixel_std: standard deviation of each channel; likewise.

    Shape:
        - input: ``(N, C, H, W)`` where ``clip_dims`` is 2, ``(N, C, T, H, W)`` where it is 3
        - :meth:`forward`: ``(N, F)``
        - :meth:`forward_map`: ``(N, F, h, w)`` or ``(N, F, t, h, w)``
        - :meth:`pool`: such a map to ``(N, F)``
    """

    num_features: int
    clip_dims: int
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN
    pixel_std: tuple[float, ...] = IMAGENET_STD
    _spec: Mapping[str, Any]  # the constructor's arguments, as plain values

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.__dict__["_spec"] = plain_arguments(cls.__init__, self, args, kwargs)
        return self

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling."""
        raise NotImplementedError

    def pool(self, maps: Tensor) -> Tensor:
        """Average a map over its positions (and times)."""
        return maps.flatten(2).mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of each image or clip."""
        return self.pool(self.forward_map(x))

    @property
    def spec(self) -> dict[str, Any]:
        """How to build this network again: ``_target_`` and its arguments.

        With ``_arguments_`` where these are no plain values.
        """
        return {"_target_": import_path(self), **self._spec}


class WrappedBackbone(Backbone):
    """Any network as a backbone: one that returns features or a map of them.

    Layers, parameters and weights keep the network's own names.

    Args:
        net: the network; its output is averaged over all dimensions past the second.
        num_features: features it returns.
        clip_dims: 2 for a 2D network, 3 for a 3D network.
        map_method: name of the method of ``net`` that returns the features before pooling, for
            objectives that read maps.

    Raises:
        UserError: a value is out of range; from forward, if the output has another shape than
            declared.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> WrappedBackbone(net, num_features=5, clip_dims=2)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        num_features: int,
        clip_dims: int = 2,
        map_method: str | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise UserError(f"num_features={num_features} of a backbone must be positive")
        if clip_dims not in (2, 3):
            raise UserError(f"clip_dims={clip_dims} must be 2 (images) or 3 (clips)")
        if map_method is not None and not callable(getattr(net, map_method, None)):
            raise UserError(f"map_method={map_method!r}: {_name(net)} has no such method")
        self._wrapped = (net,)  # in a tuple, so that it is not registered as a child
        for shared in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[shared] = getattr(net, shared)
        self.num_features = num_features
        self.clip_dims = clip_dims
        self.map_method = map_method

    @property
    def net(self) -> nn.Module:
        """The network."""
        return self._wrapped[0]

    @property
    def training(self) -> bool:
        """Whether the network is in training mode."""
        return self.net.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "_wrapped" in self.__dict__:
            self.net.training = mode

    def train(self, mode: bool = True) -> Self:
        """Set the network's training mode, by its own method."""
        self.net.train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's features, averaged over all dimensions past the second."""
        y = self._checked(self.net(x))
        return self.pool(y) if y.ndim > 2 else y

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling.

        Raises:
            UserError: no ``map_method`` was given, or it returns something else.
        """
        y = self._checked(getattr(self.net, self.map_method)(x) if self.map_method else self.net(x))
        if y.ndim != self.clip_dims + 2:
            raise UserError(
                f"the map of {_name(self.net)} has shape {tuple(y.shape)}, which needs "
                f"{self.clip_dims + 2} dimensions; set map_method to its method that returns the "
                "features before pooling"
            )
        return y

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's state dict."""
        return self.net.state_dict(*args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if "net" not in self._modules:  # the prefix of the first versions
            for name in [name for name in state_dict if name.startswith(f"{prefix}net.")]:
                state_dict[prefix + name.removeprefix(f"{prefix}net.")] = state_dict.pop(name)
        self.net._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _checked(self, y: object) -> Tensor:
        if not isinstance(y, Tensor) or y.ndim < 2 or y.shape[1] != self.num_features:
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise UserError(
                f"{_name(self.net)} returns {got}, but its backbone was declared to return "
                f"(N, {self.num_features}, ...); correct num_features or the network"
            )
        return y


def unwrap(backbone: nn.Module) -> nn.Module:
    """Return the network inside a wrapper, under whose names weights are stored."""
    return backbone.net if isinstance(backbone, WrappedBackbone) else backbone


def _name(module: nn.Module) -> str:
    return type(module).__name__
