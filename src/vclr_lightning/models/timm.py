"""Image networks of timm, an optional dependency."""

from __future__ import annotations

import difflib
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import WrappedBackbone


class TimmBackbone(WrappedBackbone):
    """A network of the library timm, without its classifier, with random weights.

    Features, normalisation and image size come from timm's own configuration of the network.
    Parameters keep timm's names. Nothing is downloaded: weights come from a file (``init``), such
    as timm's own from its model hub.

    Args:
        name: of the network, with a tag (``vit_base_patch16_224.augreg_in1k``) for the
            configuration of those weights.
        image_size: height and width of the images in pixels; ``None`` for timm's. Matters only
            to networks that are built for a size, such as most transformers: those with learned
            positions interpolate them for images of another size, where timm can, and others refuse
            these.
        global_pool: how a map becomes features: ``avg``, ``max``, ``token``, if the network
            supports it; ``None`` for timm's choice.

    Attributes:
        image_size: height and width of the images that the network was built for or, where it
            takes any, of timm's configuration.
        interpolates: whether positions are interpolated for images of another size.

    Shape: - input: ``(N, 3, H, W)``; output: ``(N, F)``

    Raises:
        UserError: timm is not installed or has no such network, or the network cannot be built
            like this; from forward, if images do not have the size that it needs.

    Example:
        >>> backbone = TimmBackbone(name="test_resnet")
        >>> backbone.num_features, backbone.image_size, backbone.pixel_mean
        (96, 160, (0.5, 0.5, 0.5))
        >>> backbone(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 96])
    """

    def __init__(
        self,
        *,
        name: str = "resnet50",
        image_size: int | None = None,
        global_pool: str | None = None,
    ) -> None:
        described = timm_config(name)
        size = described.input_size[-1] if image_size is None else image_size
        self._fixed = bool(described.fixed_input_size)
        options: dict[str, Any] = {"global_pool": global_pool} if global_pool else {}
        if self._fixed:
            options["img_size"] = size
        try:
            net, self.interpolates = _create(name, options, built_for_size=self._fixed)
        # timm validates little: a wrong option fails somewhere in the network.
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            said = " ".join(str(error).split())
            raise UserError(f"timm cannot build {name}({given}): {said}") from error
        super().__init__(net, num_features=int(getattr(net, "head_hidden_size", net.num_features)))
        self.image_size, self._name = size, name
        self.pixel_mean, self.pixel_std = tuple(described.mean), tuple(described.std)
        if "image_size" in self._spec:
            self._spec = {**self._spec, "image_size": size}

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, pooled as timm does."""
        self._check_size(*x.shape[-2:])
        return super().forward(x)

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, h, w)``; of a transformer, the patches'.

        Raises:
            UserError: the features are those of a token, not an average over the map.
        """
        net: Any = self.net
        self._check_size(*x.shape[-2:])
        y: Tensor = net.forward_features(x)
        if y.ndim == 3:
            if getattr(net, "global_pool", "") not in ("avg", "avgmax", "max"):
                raise UserError(
                    f"the features of {self._name} are those of a token, which a map does "
                    "not hold; give backbone.global_pool=avg"
                )
            patches = y[:, self._prefix :]
            embed = net.patch_embed
            height, width = (
                embed.dynamic_feat_size(x.shape[-2:]) if self.interpolates else embed.grid_size
            )
            return patches.transpose(1, 2).reshape(len(y), -1, height, width)
        return y.permute(0, 3, 1, 2) if self._channels_last else y

    def pool(self, maps: Tensor) -> Tensor:
        """Return the features of such a map, ``(N, F)``."""
        if self._channels_last:
            maps = maps.permute(0, 2, 3, 1)
        elif hasattr(self.net, "num_prefix_tokens"):
            patches = maps.flatten(2).transpose(1, 2)
            prefix = patches.new_zeros(len(patches), self._prefix, patches.shape[2])
            maps = torch.cat([prefix, patches], dim=1)
        features: Tensor = self.net.forward_head(maps)  # type: ignore[operator]
        return features

    def _check_size(self, height: int, width: int) -> None:
        if self._fixed and not self.interpolates:
            if (height, width) == (self.image_size, self.image_size):
                return
            raise UserError(
                f"{self._name} was built for pictures of {self.image_size} pixels, and "
                f"these have {height} x {width}; give the same image_size to both"
            )
        if self.interpolates and (height % (patch := _patch(self.net)) or width % patch):
            raise UserError(
                f"{self._name} takes pictures of whole patches of {patch} pixels, and these have "
                f"{height} x {width}; give an image_size that is a multiple of {patch}"
            )

    @property
    def _prefix(self) -> int:
        """Number of tokens before those of the patches."""
        return int(getattr(self.net, "num_prefix_tokens", 0))

    @property
    def _channels_last(self) -> bool:
        return str(getattr(self.net, "output_fmt", "")) == "NHWC"


def _create(name: str, options: dict[str, Any], *, built_for_size: bool) -> tuple[Any, bool]:
    """Return a network of timm, and whether it interpolates its positions."""
    create = partial(import_module("timm").create_model, name, pretrained=False, num_classes=0)
    if built_for_size:
        try:
            net = create(**options, dynamic_img_size=True)
        except TypeError as error:  # the network has no such option
            if "dynamic_img_size" not in str(error):
                raise
        else:
            if options["img_size"] % _patch(net) == 0:
                return net, True
    net = create(**options)
    return net, built_for_size and bool(getattr(net, "dynamic_img_size", False))


def _patch(net: Any) -> int:
    """Return of what the size of images must be a multiple, where it may be any."""
    embed = net.patch_embed
    return 1 if embed.dynamic_img_pad else int(embed.patch_size[0])


def timm_config(name: str) -> Any:
    """Return timm's configuration of a network: ``input_size``, ``mean``, ``std`` and so on.

    Raises:
        UserError: timm is not installed, or has no such network.

    Example:
        >>> timm_config("test_vit").input_size
        (3, 160, 160)
    """
    if find_spec("timm") is None:
        raise UserError(
            f"backbone {name} is one of timm, which is not installed; run "
            "pip install 'vclr_lightning[timm]'"
        )
    timm = import_module("timm")
    try:
        described = timm.get_pretrained_cfg(str(name)) if timm.is_model(str(name)) else None
    except RuntimeError:  # the network exists, but not this tag of it
        described = None
    if described is None:
        known = timm.list_pretrained() if "." in str(name) else timm.list_models()
        near = difflib.get_close_matches(str(name), known, n=3)
        hint = f"near it are {', '.join(near)}" if near else "timm.list_models() lists them"
        raise UserError(f"timm has no network {name!r}; {hint}")
    return described


def timm_image_size(name: str) -> int:
    """Return height and width of the images in timm's configuration of a network.

    Example:
        >>> timm_image_size("test_vit")
        160
    """
    return int(timm_config(name).input_size[-1])
