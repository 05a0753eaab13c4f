"""Whether a network can take the clips of a run, before anything is trained or extracted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch
from vclr_lightning.evaluation.encoders import evaluation_mode
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.modules.encoding import through
from vclr_lightning.modules.input_pixels import pixels_of

logger = logging.getLogger(__name__)


def check_clip_sizes(backbone: nn.Module, shapes: Iterable[tuple[int, int]]) -> None:
    """Encode black clips of each shape, in evaluation mode, and forget it.

    Args:
        backbone: the network.
        shapes: frames, and height and width in pixels.

    Raises:
        UserError: the network cannot take such clips, or returns other features than it declares.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> check_clip_sizes(TinyBackbone(width=8), [(1, 64), (1, 96)])
    """
    if getattr(backbone, "_compiled_call_impl", None) is not None:
        return  # two clips would be compiled for
    name = type(unwrap(backbone)).__name__
    for frames, size in sorted(set(shapes)):
        # Two: BatchNorm without running statistics takes no single value.
        clips = torch.zeros(2, 1, 3, frames, size, size, dtype=torch.uint8)
        what = f"clips of {frames} frames of " if frames > 1 else "pictures of "
        what += f"{size} x {size} pixels (image_size={size})"
        try:
            features = _encoded(backbone, clips)
        except UserError:
            raise
        except Exception as error:  # whatever the layers of a network raise
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{name} cannot encode {what}: {said:.300}; give another image_size"
                f"{' or frames_per_clip' if frames > 1 else ''}, or mend the network"
            ) from error
        declared = getattr(backbone, "num_features", features.shape[-1])
        if features.shape[2:] != (declared,):
            raise UserError(
                f"{name} returns features {tuple(features.shape[2:])} of {what}, and declares "
                f"num_features={declared}; correct num_features, or the network"
            )
        built = getattr(backbone, "image_size", size)
        if getattr(backbone, "interpolates", False) and built != size and is_rank_zero():
            logger.info(
                "positions of %s are those of %s pixels, interpolated for %s", name, built, size
            )


def check_first_batch(
    networks: Mapping[str, nn.Module], reads: Iterable[tuple[str, str]], batch: Batch
) -> None:
    """Check that networks can encode a batch; see :func:`check_clip_sizes`.

    Args:
        networks: by name; of several of one class the first is checked, as the others are copies.
        reads: names of networks, and of a view that each encodes.
        batch: the first one.
    """
    shapes: dict[type, tuple[nn.Module, set[tuple[int, int]]]] = {}
    order = list(networks)
    for name, view in sorted(reads, key=lambda read: order.index(read[0])):
        if view in batch["views"]:
            frames, size = batch["views"][view].shape[3:5]
            network = networks[name]
            shapes.setdefault(type(unwrap(network)), (network, set()))[1].add((frames, size))
    for network, found in shapes.values():
        check_clip_sizes(network, found)


def _encoded(backbone: nn.Module, clips: Tensor) -> Tensor:
    weight = next(backbone.parameters(), clips)
    devices = [weight.device] if weight.is_cuda else []
    with evaluation_mode(backbone), torch.no_grad(), torch.random.fork_rng(devices=devices):
        return through(backbone, clips.to(weight.device), pixels=pixels_of(backbone))
