"""Grad-CAM: the regions of an image that raise a score (Selvaraju et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vclr_lightning.functional.precision import without_autocast

_LUMA = (0.299, 0.587, 0.114)  # of red, green, blue
_OPACITY = 0.75  # of the heat where it is 1


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the heat map of each image or clip: ReLU of the sum of the weighted channels.

    The weight of a channel is the mean of its gradient over the positions.

    Args:
        activations: output of a layer.
        gradients: of the score with respect to them.

    Shape:
        ``(N, C, h, w)`` to ``(N, h, w)``, ``(N, C, t, h, w)`` to ``(N, t, h, w)``; at least float32

    Example:
        >>> activations = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])  # two channels, 1 x 2
        >>> gradients = torch.tensor([[[[2.0, 2.0]], [[-1.0, -1.0]]]])
        >>> grad_cam(activations, gradients).tolist()
        [[[2.0, 0.0]]]
    """
    work = torch.promote_types(activations.dtype, torch.float32)
    weights = gradients.to(work).flatten(2).mean(dim=2)
    with without_autocast(activations):
        return torch.einsum("nc,nc...->n...", weights, activations.to(work)).relu()


def enlarge(heat: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize heat maps to the size of the images or clips, by linear interpolation.

    Shape:
        ``(N, h, w)`` to ``(N, H, W)`` where ``size`` is ``(H, W)``; ``(N, t, h, w)`` to
        ``(N, T, H, W)`` where it is ``(T, H, W)``

    Example:
        >>> enlarge(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
    """
    mode = "bilinear" if heat.ndim == 3 else "trilinear"
    return interpolate(heat[:, None], size=size, mode=mode, align_corners=False)[:, 0]


def shares(heat: Tensor) -> Tensor:
    """Divide by the maximum, so that the hottest position is 1; all zeros stay zeros.

    Example:
        >>> shares(torch.tensor([0.0, 1.0, 4.0])).tolist(), shares(torch.zeros(2)).tolist()
        ([0.0, 0.25, 1.0], [0.0, 0.0])
    """
    largest = heat.max()
    return heat / largest if largest > 0 else torch.zeros_like(heat)


def overlay(pictures: Tensor, heat: Tensor) -> Tensor:
    """Blend heat maps with grey versions of the images, whose colours could be mistaken for heat.

    The colormap is matplotlib's ``inferno``, whose lightness increases monotonically, so it is
    readable without colours. Where the heat is 0, the grey image remains.

    Shape:
        ``(..., 3, H, W)`` uint8 and ``(..., H, W)`` from 0 to 1; result ``(..., 3, H, W)`` uint8

    Example:
        >>> overlay(torch.full((3, 1, 1), 100, dtype=torch.uint8), torch.zeros(1, 1)).tolist()
        [[[100]], [[100]], [[100]]]
    """
    from matplotlib import colormaps

    heat = heat.float().cpu().clamp(0, 1)
    colours = 255 * torch.from_numpy(colormaps["inferno"](heat.numpy())[..., :3]).movedim(-1, -3)
    grey = (pictures.float() * torch.tensor(_LUMA)[:, None, None]).sum(-3, keepdim=True)
    blended = torch.lerp(grey, colours.float(), _OPACITY * heat[..., None, :, :])
    return blended.round().to(torch.uint8)
