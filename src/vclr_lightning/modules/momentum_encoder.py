"""How an encoder follows another: the declaration of a momentum encoder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from vclr_lightning.core.errors import UserError, check_named
from vclr_lightning.core.momentum import MomentumSchedule, check_momentum, momentum_at
from vclr_lightning.modules.key_batchnorm import MODES, KeyBatchNorm
from vclr_lightning.modules.trainer_checks import check_trainable

QUERY = "query"
"""Name of the encoder that is evaluated and exported."""

Batches = Literal["all", "request"]


@dataclass(frozen=True, kw_only=True)
class MomentumEncoder:
    """Declares an encoder that follows a trained one by an exponential moving average.

    Its parameters are ``momentum * own + (1 - momentum) * followed`` after every optimizer step.
    BatchNorm keeps its own statistics.

    Args:
        follows: name of the trained encoder.
        momentum: a number, or a schedule; see
            :class:`~vclr_lightning.core.momentum.CosineMomentum`.
        batchnorm: which clips BatchNorm normalises together: ``"shuffle"`` videos over ranks,
            ``"split"`` into groups normalised separately, ``"sync"`` over all ranks (CUDA only),
            ``"none"``: each rank's batch; ``"auto"``: shuffle on several ranks, split on one.
        batchnorm_groups: number of groups of ``"split"``.
        batches: ``"all"``: all clips of a step are one BatchNorm batch, and each is encoded once;
            ``"request"``: the clips of each request are one, with its own shuffle.
        chunk: clips per forward, to save memory; BatchNorm normalises each chunk separately.
            ``None`` for all at once.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> MomentumEncoder(momentum=0.99).follows
        'query'
    """

    follows: str = QUERY
    momentum: float | MomentumSchedule = 0.999
    batchnorm: KeyBatchNorm = "auto"
    batchnorm_groups: int = 4
    batches: Batches = "all"
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_momentum(self.momentum, what="of a momentum encoder")
        if self.batchnorm not in MODES:
            raise UserError(f"batchnorm={self.batchnorm!r} must be one of {', '.join(MODES)}")
        if self.batchnorm_groups < 1:
            raise UserError(f"batchnorm_groups={self.batchnorm_groups} must be at least 1")
        check_batches(self.batches)
        if self.chunk is not None and self.chunk < 1:
            raise UserError(f"chunk={self.chunk} must be at least 1, or none")

    def momentum_at(self, step: int, total_steps: Callable[[], int]) -> float:
        """Return the momentum of the update after optimizer step ``step`` (from 0).

        Raises:
            UserError: a schedule returns a value that is not between 0 and 1.
        """
        return momentum_at(self.momentum, step, total_steps)


def check_batches(batches: str) -> None:
    """Raise a :class:`UserError` unless ``batches`` is one of :data:`Batches`."""
    if batches not in get_args(Batches):
        raise UserError(f"batches={batches!r} must be 'all' or 'request'")


def _is_encoder(part: object) -> bool:
    return isinstance(part, MomentumEncoder | nn.Module)


def check_encoders(
    encoders: Mapping[str, MomentumEncoder | nn.Module], requested: Collection[str]
) -> None:
    """Check the encoders beside ``query`` by name, of which some are requested.

    Raises:
        UserError: a name cannot be an encoder's, a momentum encoder follows nobody, or an encoder
            that is requested is not there.
    """
    check_named("objective.encoders", encoders, what="encoder", fits=_is_encoder)
    for name, encoder in encoders.items():
        if not name.isidentifier() or name == QUERY:
            raise UserError(
                f"an encoder can't be named {name!r}; use letters and underscores"
                + (", and pass the network itself as backbone" if name == QUERY else "")
            )
        if isinstance(encoder, nn.Module):
            check_trainable(encoder)
            continue
        trained = [QUERY, *(n for n, other in encoders.items() if isinstance(other, nn.Module))]
        if encoder.follows not in trained:
            raise UserError(
                f"the momentum encoder {name} follows {encoder.follows!r}, which is no trained "
                f"encoder; set follows to {' or '.join(trained)}"
            )
    if missing := sorted(set(requested) - {QUERY, *encoders}):
        raise UserError(
            f"the objectives read the encoder {', '.join(missing)}, but the encoders are "
            f"{', '.join([QUERY, *encoders])}; add it to encoders, such as "
            f"encoders.{missing[0]} = MomentumEncoder(follows='query')"
        )
