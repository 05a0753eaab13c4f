"""The encoders of a method: trained networks, and momentum encoders that follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import UserError, check_named
from vclr_lightning.core.lightning import Trainer
from vclr_lightning.core.momentum import momentum_update
from vclr_lightning.core.random import Key, torch_generator
from vclr_lightning.core.types import Request
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.modules.encoding import INPUT, Encoded, encoded
from vclr_lightning.modules.encoding_plan import Forward, plan_encodings
from vclr_lightning.modules.input_pixels import pixels_of
from vclr_lightning.modules.key_batchnorm import (
    KeyBatchNorm,
    encode_apart,
    key_copy,
    resolve_mode,
)
from vclr_lightning.modules.momentum_encoder import (
    QUERY,
    Batches,
    MomentumEncoder,
    check_batches,
    check_encoders,
)
from vclr_lightning.modules.trainer_checks import warn_of_slow_statistics
from vclr_lightning.objectives.base import Objective

Follower = tuple[str, nn.Module, nn.Module]
"""Name of the momentum encoder, the module that is followed, and the one that follows."""


def _is_request(part: object) -> bool:
    return isinstance(part, Request)


class EncoderGraph:
    """The networks of a method's encoders, what goes through them, and who follows whom.

    Args:
        backbone: the network of ``query``.
        encoders: declared beside it, by name; those that no request names are not built.
        requests: by objective, then by the request's name.
        batches: of trained encoders; see :class:`MomentumEncoder`.
        mean, std, channels_last: see :func:`~vclr_lightning.modules.input_pixels.pixels_of`.

    Attributes:
        networks: by encoder; ``query`` is the first.
        pixels: how the clips of each are prepared.
        plan: of a step's forwards; momentum encoders come first, before activations are kept for
            the gradient.

    Raises:
        UserError: encoders and requests do not fit together.
    """

    def __init__(
        self,
        backbone: nn.Module,
        encoders: Mapping[str, MomentumEncoder | nn.Module],
        *,
        requests: Mapping[str, Mapping[str, Request]],
        batches: Batches = "all",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = False,
    ) -> None:
        check_batches(batches)
        for objective, named in requests.items():
            key = f"objective.objectives.{objective}.requests"
            check_named(key, named, what="Request", fits=_is_request)
        asked = [request for named in requests.values() for request in named.values()]
        used = {request.encoder for request in asked}
        check_encoders(encoders, used)
        self.momentum = {
            name: encoder
            for name, encoder in encoders.items()
            if name in used and isinstance(encoder, MomentumEncoder)
        }
        used |= {encoder.follows for encoder in self.momentum.values()}
        trained = {QUERY: backbone} | {
            name: encoder
            for name, encoder in encoders.items()
            if name in used and isinstance(encoder, nn.Module)
        }
        pixels = partial(pixels_of, mean=mean, std=std, channels_last=channels_last)
        self.pixels = {name: pixels(network) for name, network in trained.items()}
        self.networks = {
            name: network.to(memory_format=self.pixels[name].memory_format).train()
            for name, network in trained.items()
        }
        for name, encoder in self.momentum.items():
            self.networks[name] = key_copy(trained[encoder.follows], encoder.batchnorm)
            self.pixels[name] = self.pixels[encoder.follows]
        self.plan = plan_encodings(
            requests,
            encoders=[*self.momentum, *trained],
            apart={
                name
                for name in self.networks
                if (self.momentum[name].batches if name in self.momentum else batches) == "request"
            },
        )
        self.reads_inside = any(request.layer or not request.pooled for request in asked)
        for objective, named in requests.items():
            for request in named.values():
                if request.layer is not None:
                    self._check_layer(request.encoder, request.layer, reader=objective)

    def _check_layer(self, encoder: str, layer: str, *, reader: str) -> None:
        try:
            find_layer(self.networks[encoder], layer.removesuffix(INPUT))
        except UserError as error:
            raise UserError(f"objective.objectives.{reader} reads @{layer}: {error}") from error

    def mode(self, name: str, *, world_size: int) -> KeyBatchNorm:
        """Return how BatchNorm of a momentum encoder works on ``world_size`` ranks.

        Raises:
            UserError: it cannot.
        """
        encoder = self.networks[name]
        return resolve_mode(self.momentum[name].batchnorm, world_size=world_size, encoder=encoder)

    def check(self, trainer: Trainer) -> None:
        """Check BatchNorm of momentum encoders in a trainer, and warn of slow statistics of others.

        Raises:
            UserError: BatchNorm of one cannot work on the trainer's ranks.
        """
        for name, network in self.networks.items():
            if name in self.momentum:
                self.mode(name, world_size=trainer.world_size)
            else:
                warn_of_slow_statistics(trainer, network)

    def encode(self, forward: Forward, clips: Tensor, *, keys: tuple[Key, ...]) -> Encoded:
        """Encode one BatchNorm batch of a step; ``keys`` are those of the step's random numbers."""
        name = forward.encoder
        encode = partial(
            encoded, self.networks[name], pixels=self.pixels[name], kinds=forward.kinds
        )
        if name not in self.momentum:
            return encode(clips)
        seed, *step = keys
        momentum = self.momentum[name]
        with torch.no_grad():
            return encode_apart(
                clips,
                partial(encode, chunk=momentum.chunk),
                mode=self.mode(name, world_size=distributed.world_size()),
                groups=momentum.batchnorm_groups,
                rng=torch_generator(seed, "key_batchnorm", forward.name, *step),
            )

    def followers(self, objectives: Mapping[str, Objective]) -> Iterator[Follower]:
        """Yield every momentum update: of the encoders, then of the objectives' heads.

        Heads move with the first momentum encoder that their objective reads.

        Raises:
            UserError: an objective has momentum heads, and there is no momentum encoder.
        """
        for name, momentum in self.momentum.items():
            yield name, self.networks[momentum.follows], self.networks[name]
        for name, objective in objectives.items():
            read = [r.encoder for r in objective.requests().values() if r.encoder in self.momentum]
            leaders = [*read, *self.momentum]
            for query, key in objective.momentum_pairs():
                if not leaders:
                    raise UserError(
                        f"the objective {name} has momentum heads, but reads no momentum encoder; "
                        "request a view of one, such as key"
                    )
                yield leaders[0], query, key

    def update(
        self, objectives: Mapping[str, Objective], *, step: int, total_steps: Callable[[], int]
    ) -> None:
        """Move all that follows after optimizer step ``step`` (from 0)."""
        pairs: dict[float, list[tuple[nn.Module, nn.Module]]] = {}
        for name, query, key in self.followers(objectives):
            momentum = self.momentum[name].momentum_at(step, total_steps)
            pairs.setdefault(momentum, []).append((query, key))
        for momentum, some in pairs.items():
            momentum_update(some, momentum)
