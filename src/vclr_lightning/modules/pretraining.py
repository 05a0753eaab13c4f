"""The LightningModule of pretraining: query and momentum encoder, and any mixture of objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.momentum import momentum_update
from vclr_lightning.core.random import seed_of, torch_generator
from vclr_lightning.core.schedules import SchedulerFactory
from vclr_lightning.core.types import Batch, ObjectiveOutput
from vclr_lightning.evaluation.encoders import evaluation_mode
from vclr_lightning.models.network_spec import record_network
from vclr_lightning.modules.encoding import Encoded, encode_plan, encoded, through
from vclr_lightning.modules.encoding_plan import Forward, plan_encodings
from vclr_lightning.modules.input_pixels import backbone_number, pixels_of
from vclr_lightning.modules.key_batchnorm import (
    KeyBatchNorm,
    check_key_options,
    encode_apart,
    key_copy,
    resolve_mode,
    running_statistics,
)
from vclr_lightning.modules.metric_averaging import MetricAveragingModule
from vclr_lightning.modules.mixture import PendingKeys, build_objectives
from vclr_lightning.modules.optimization import with_schedule
from vclr_lightning.modules.trainer_checks import (
    check_trainable,
    check_trainer,
    warn_of_long_queues,
    warn_of_slow_statistics,
)
from vclr_lightning.objectives.base import Objective, ObjectiveFactory


class PretrainModule(MetricAveragingModule):
    """Train a backbone by a weighted sum of objectives (Section 3.4 of the paper).

    The objectives request clips; the union is planned once, and every clip goes through each
    encoder at most once. The key encoder is a momentum copy of the backbone. Queues and momentum
    encoder change only in an optimizer step that was not skipped, with the keys of all ranks and
    accumulated micro-batches in the order of the global batch.

    Args:
        backbone: the network to train; see :class:`~vclr_lightning.models.backbone.Backbone`.
        objectives: factories by name; a class may appear under several names.
        optimizer: takes the parameters to train, such as ``partial(SGD, lr=0.1)``.
        weights: of the losses, by name; 1 by default. An objective of weight 0 is not built, so
            nothing is decoded or encoded for it.
        scheduler: takes the optimizer, ``steps_per_epoch`` and ``epochs``; stepped once after
            each optimizer step. ``None`` for a constant learning rate.
        momentum: of the key encoder.
        key_batchnorm: which keys BatchNorm normalises together: ``"shuffle"`` videos over ranks,
            ``"split"`` into groups normalised separately, ``"sync"`` over all ranks (CUDA only),
            ``"none"``: each rank's batch; ``"auto"``: shuffle on several ranks, split on one.
        batchnorm_groups: number of groups of ``"split"``.
        share_encodings: encode a frame once for all objectives, all frames of an encoder as one
            BatchNorm batch. Otherwise as the released code: x1 and the tuple separately through the
            query encoder; the second view, x2, x3 and the tuple separately through the key encoder,
            each with its own shuffle.
        key_chunk: clips per forward of the key encoder, to save memory; BatchNorm normalises each
            chunk separately. ``None`` for all at once.
        mean, std: of each channel's pixels, in 0 to 1; ``None`` for the backbone's.
        channels_last: keep images and weights in the channels-last memory format. (In it, PyTorch
            2.14 on a CPU crashes in convolutions of only 4 channels.)
        compile: compile both encoders with ``torch.compile``.
        seed: of every random number drawn in training.

    Raises:
        UserError: a value is out of range or unknown, or no objective is left.

    Example:
        >>> from functools import partial
        >>> from vclr_lightning.models import TinyBackbone
        >>> from vclr_lightning.objectives import InterFrame, TemporalOrder
        >>> module = PretrainModule(
        ...     backbone=TinyBackbone(width=8),
        ...     objectives={"inter": partial(InterFrame, queue_size=64), "order": TemporalOrder},
        ...     weights={"order": 0},
        ...     optimizer=partial(torch.optim.SGD, lr=0.1),
        ... )
        >>> sorted(module.required_views)
        ['anchor', 'extra', 'second']
    """

    small_steps = "the key encoder"

    def __init__(
        self,
        *,
        backbone: nn.Module,
        objectives: Mapping[str, ObjectiveFactory],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        weights: Mapping[str, float] | None = None,
        scheduler: SchedulerFactory | None = None,
        momentum: float = 0.999,
        key_batchnorm: KeyBatchNorm = "auto",
        batchnorm_groups: int = 4,
        share_encodings: bool = True,
        key_chunk: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = False,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_key_options(momentum, key_batchnorm, batchnorm_groups, key_chunk)
        check_trainable(backbone)
        self.num_features = backbone_number(backbone, "num_features")
        self.pixels = pixels_of(backbone, mean=mean, std=std, channels_last=channels_last)
        built = build_objectives(objectives, weights, num_features=self.num_features)
        self.objectives = nn.ModuleDict(built.objectives)
        self.loss_weights = built.weights
        self.plan = plan_encodings(
            {name: objective.requests() for name, objective in built.objectives.items()},
            share_encodings=share_encodings,
        )
        # A loaded backbone is in evaluation mode.
        self.query_encoder = backbone.to(memory_format=self.pixels.memory_format).train()
        self.key_encoder: nn.Module | None = None
        if self.plan.uses("key"):
            self.key_encoder = key_copy(self.query_encoder, key_batchnorm)
        if compile:
            for encoder in filter(None, (self.query_encoder, self.key_encoder)):
                encoder.compile()
        for _, key in self._momentum_pairs():
            key.requires_grad_(False)
        self.reset_key_encoder()
        self.momentum, self.key_chunk, self.seed = momentum, key_chunk, seed
        self.key_batchnorm, self.batchnorm_groups = key_batchnorm, batchnorm_groups
        self._optimizer, self._scheduler = optimizer, scheduler
        self._pending = PendingKeys()

    @property
    def required_views(self) -> frozenset[str]:
        """Names of the views that training needs; the data module decodes no others."""
        return self.plan.views

    def encode(self, frames: Tensor) -> Tensor:
        """Encode ``(M, C, T, H, W)`` uint8 to ``(M, F)`` in evaluation mode without gradient."""
        with evaluation_mode(self.query_encoder), torch.no_grad():
            return through(self.query_encoder, frames[:, None], pixels=self.pixels).squeeze(1)

    def reset_key_encoder(self) -> None:
        """Copy the query side to the key side, after loading weights into the query side."""
        for query, key in self._momentum_pairs():
            key.load_state_dict(query.state_dict())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the weighted ``loss``, and each objective's own under ``losses``."""
        encode = partial(self._encode, step=(self.current_epoch, batch_idx))
        features = encode_plan(self.plan, batch, encode=encode)
        outputs = {
            name: objective(features.get(name, {}), batch) for name, objective in self._objectives()
        }
        for name, out in outputs.items():
            if not isinstance(out, ObjectiveOutput) or out.loss.ndim:
                kind = type(self.objectives[name]).__qualname__
                raise TypeError(f"{kind} ({name}) must return an ObjectiveOutput of scalar loss")
        total = torch.stack([self.loss_weights[n] * out.loss for n, out in outputs.items()]).sum()
        self._pending.add(outputs)
        self._log_step(total, outputs, len(batch["video_id"]))
        return {"loss": total, "losses": {name: out.loss.detach() for name, out in outputs.items()}}

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        except (TypeError, ValueError) as error:
            raise UserError(f"the optimizer cannot be set up: {error}; check optim") from error
        optimizer.register_step_post_hook(self._after_step)
        return with_schedule(optimizer, self._scheduler, self)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Keep the statistics equal on all ranks, as evaluation and checkpoints assume.
        distributed.average_in_place(running_statistics(self.query_encoder, self.key_encoder))
        # Still there if the gradient scaler skipped the step.
        self._pending.drop()

    def _after_step(self, optimizer: Optimizer, *_unused: Any) -> None:
        found_inf = getattr(optimizer, "found_inf", None)  # fused optimizers skip by themselves
        if found_inf is not None and found_inf.item():
            return
        momentum_update(self._momentum_pairs(), self.momentum)
        self._pending.commit(self._objectives(), self.global_step)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.train()  # Lightning leaves modes as they are
        warn_of_slow_statistics(self.trainer, self.query_encoder)
        check_trainer(self.trainer, device=self.device, key_batchnorm=self.key_batchnorm)
        if self.key_encoder is not None:
            resolve_mode(
                self.key_batchnorm, world_size=self.trainer.world_size, encoder=self.key_encoder
            )
        self._pending.drop()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        record_network(checkpoint, self.query_encoder)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Makes whatever draws from the global generator (dropout) the same after resuming.
        keys = (self.current_epoch, batch_idx, distributed.rank())
        torch.manual_seed(seed_of(self.seed, "step", *keys))
        if batch_idx == 0 and self.current_epoch == 0 and self._trainer is not None:
            warn_of_long_queues(self.trainer, self._objectives(), videos=len(batch["video_id"]))

    def _encode(self, forward: Forward, name: str, clips: Tensor, step: tuple[int, int]) -> Encoded:
        """Encode one BatchNorm batch of this ``name``."""
        encode = partial(encoded, pixels=self.pixels, features=forward.features, maps=forward.maps)
        if forward.encoder == "query":
            return encode(self.query_encoder, clips)
        assert self.key_encoder is not None
        encode = partial(encode, self.key_encoder, chunk=self.key_chunk)
        mode = resolve_mode(
            self.key_batchnorm, world_size=distributed.world_size(), encoder=self.key_encoder
        )
        rng = torch_generator(self.seed, "key_batchnorm", name, *step)
        with torch.no_grad():
            return encode_apart(clips, encode, mode=mode, groups=self.batchnorm_groups, rng=rng)

    def _objectives(self) -> Iterator[tuple[str, Objective]]:
        for name, objective in self.objectives.items():
            yield name, cast(Objective, objective)

    def _momentum_pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        if self.key_encoder is not None:
            yield self.query_encoder, self.key_encoder
        for _, objective in self._objectives():
            yield from objective.momentum_pairs()

    def _log_step(self, total: Tensor, outputs: Mapping[str, ObjectiveOutput], videos: int) -> None:
        values = {"train/loss": total}
        for name, output in outputs.items():
            metrics = {"loss": output.loss, **output.metrics}
            values |= {f"train/{name}/{key}": value for key, value in metrics.items()}
        if self.log_means(values, videos=videos, shown=["train/loss"]):
            for name, objective in self._objectives():
                state = objective.diagnostics(self.global_step)
                self.log_state({f"train/{name}/{key}": value for key, value in state.items()})
