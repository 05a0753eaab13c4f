"""Memory format and compilation of a module's networks, neither of which changes a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vclr_lightning.core.device_settings import trainer_settings
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Trainer
from vclr_lightning.modules.input_pixels import Pixels

Compile = bool | Mapping[str, Any]
"""Whether to compile networks, or the arguments of ``torch.compile``."""


def laid_out(
    networks: Mapping[str, nn.Module], pixels: Mapping[str, Pixels], trainer: Trainer
) -> dict[str, Pixels]:
    """Give networks the memory format that the trainer's device wants; return their new pixels.

    That is channels-last for 2D networks on GPUs with tensor cores
    (:func:`~vclr_lightning.core.device_settings.device_settings`). Weights are changed in place,
    before an optimizer or DDP reads them. 3D networks stay as they are: NDHWC convolutions have not
    been measured.

    Args:
        networks: by name.
        pixels: of each, how its clips are prepared.
        trainer: whose device trains.
    """
    wanted = trainer_settings(trainer).channels_last
    found = {
        name: replace(one, channels_last=wanted and one.clip_dims == 2)
        for name, one in pixels.items()
    }
    for name, network in networks.items():
        if found[name] != pixels[name]:
            last = torch.channels_last if found[name].channels_last else torch.contiguous_format
            network.to(memory_format=last)
    return found


def compile_networks(
    networks: Iterable[nn.Module], options: Compile, *, inside: bool = False
) -> None:
    """Compile networks in place, so that parameters and buffers keep their names.

    Checkpoints and exports are the same with and without, so either continues the other.

    Args:
        networks: whose calls are compiled at the first one.
        options: ``True`` for the defaults of ``torch.compile``, or its arguments, such as
            ``{"mode": "max-autotune-no-cudagraphs"}``.
        inside: whether maps or layers of the networks are read, which compiled ones do not give.

    Raises:
        UserError: an argument is none of ``torch.compile``, or something inside is read.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> compile_networks([net], {"backend": "eager"})
        >>> list(net.state_dict()), net(torch.zeros(1, 2)).shape
        (['0.weight', '0.bias'], torch.Size([1, 3]))
    """
    if options is False:
        return
    if inside:
        raise UserError("a compiled network's layers and maps cannot be read; set compile=false")
    if options is not True and not isinstance(options, Mapping):
        raise UserError(
            f"module.compile={options} must be true, false, or arguments of torch.compile, such as "
            "{backend: inductor}"
        )
    arguments = {} if options is True else dict(options)
    for network in networks:
        try:
            network.compile(**arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"module.compile={arguments} is nothing that torch.compile takes: {said:.200}"
            ) from error
