"""The LightningModule of pretraining: encoders, and any mixture of objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vclr_lightning.core import distributed
from vclr_lightning.core.random import seed_of
from vclr_lightning.core.schedules import SchedulerFactory
from vclr_lightning.core.types import Batch, ObjectiveOutput
from vclr_lightning.evaluation.encoders import evaluation_mode
from vclr_lightning.models.network_spec import record_network
from vclr_lightning.modules.clip_sizes import check_first_batch
from vclr_lightning.modules.device_layout import Compile, compile_networks, laid_out
from vclr_lightning.modules.encoder_graph import EncoderGraph
from vclr_lightning.modules.encoding import encode_plan, through
from vclr_lightning.modules.input_pixels import backbone_number
from vclr_lightning.modules.key_batchnorm import running_statistics
from vclr_lightning.modules.metric_averaging import MetricAveragingModule
from vclr_lightning.modules.mixture import (
    PendingKeys,
    build_objectives,
    evaluate_objectives,
    prepare_objectives,
)
from vclr_lightning.modules.momentum_encoder import QUERY, Batches, MomentumEncoder
from vclr_lightning.modules.optimization import run_length, with_schedule
from vclr_lightning.modules.parameter_groups import ParameterGroup, build_optimizer
from vclr_lightning.modules.trainer_checks import (
    check_all_used,
    check_synchronised,
    check_trainable,
    check_trainer,
    warn_of_long_queues,
)
from vclr_lightning.objectives.base import Objective, ObjectiveFactory


class PretrainModule(MetricAveragingModule):
    """Train a backbone by a weighted sum of objectives (Section 3.4 of the paper).

    The objectives request clips of views by an encoder; the union is planned once, and every clip
    goes through each encoder at most once. Queues and momentum encoders change only in an
    optimizer step that was not skipped, with the keys of all ranks and accumulated micro-batches in
    the order of the global batch.

    Args:
        backbone: the network to train, the encoder ``query``, which is evaluated and exported; see
            :class:`~vclr_lightning.models.backbone.Backbone`.
        encoders: further encoders by name: momentum encoders, and networks that are trained too.
            Those that no objective requests are not built. By default, ``key`` follows ``query``.
        objectives: factories by name; a class may appear under several names.
        optimizer: takes the parameters to train, such as ``partial(SGD, lr=0.1)``.
        weights: of the losses, by name; 1 by default. An objective of weight 0 is not built, so
            nothing is decoded or encoded for it.
        scheduler: takes the optimizer, ``steps_per_epoch`` and ``epochs``; stepped once after
            each optimizer step. ``None`` for a constant learning rate.
        groups: parameters by name that have a learning rate and weight decay of their own.
        batches: of trained encoders: ``"all"``: all clips of a step are one BatchNorm batch, and
            each is encoded once; ``"request"``: the clips of each request are one, as in the
            released code.
        mean, std: of each channel's pixels, in 0 to 1; ``None`` for the backbone's.
        channels_last: keep images and weights in the channels-last memory format; ``None``: see
            :func:`~vclr_lightning.modules.device_layout.laid_out`. (In it, PyTorch 2.14 on a CPU
            crashes in convolutions of only 4 channels.)
        compile: compile the encoders; ``True``, or the arguments of ``torch.compile``.
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

    small_steps = "a momentum encoder"

    def __init__(
        self,
        *,
        backbone: nn.Module,
        objectives: Mapping[str, ObjectiveFactory],
        optimizer: Callable[[Iterable[Any]], Optimizer],
        encoders: Mapping[str, MomentumEncoder | nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        scheduler: SchedulerFactory | None = None,
        groups: Mapping[str, ParameterGroup | None] | None = None,
        batches: Batches = "all",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool | None = None,
        compile: Compile = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_trainable(backbone)
        self.num_features = backbone_number(backbone, "num_features")
        built = build_objectives(objectives, weights, num_features=self.num_features)
        self._graph = EncoderGraph(
            backbone,
            {"key": MomentumEncoder()} if encoders is None else encoders,
            requests={name: one.requests() for name, one in built.objectives.items()},
            batches=batches,
            mean=mean,
            std=std,
            channels_last=bool(channels_last),
        )
        self.plan, self.pixels = self._graph.plan, self._graph.pixels[QUERY]
        self.objectives = nn.ModuleDict(built.objectives)
        self.loss_weights = built.weights
        for name, network in self._graph.networks.items():
            self.add_module(f"{name}_encoder", network)
        compile_networks(self.encoders.values(), compile, inside=self._graph.reads_inside)
        for _, _, key in self._graph.followers(built.objectives):
            key.requires_grad_(False)
        self.reset_key_encoder()
        self.seed, self._channels_last = seed, channels_last
        self._optimizer, self._scheduler = optimizer, scheduler
        self._groups = groups or {}
        self._pending = PendingKeys()
        self._unchecked = True

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """The networks by the names of the encoders; ``query`` is the first."""
        return self._graph.networks

    @property
    def required_views(self) -> frozenset[str]:
        """Names of the views that training needs; the data module decodes no others."""
        return self.plan.views

    @property
    def required_targets(self) -> dict[str, str]:
        """Names of the targets that training needs, and of an objective that reads each."""
        return {target: name for name, one in self._objectives() for target in one.targets()}

    def encode(self, frames: Tensor) -> Tensor:
        """Encode ``(M, C, T, H, W)`` uint8 to ``(M, F)`` in evaluation mode without gradient."""
        query = self.encoders[QUERY]
        with evaluation_mode(query), torch.no_grad():
            return through(query, frames[:, None], pixels=self.pixels).squeeze(1)

    def reset_key_encoder(self) -> None:
        """Copy followed modules to those that follow, after loading weights into the former."""
        for _, query, key in self._graph.followers(dict(self._objectives())):
            key.load_state_dict(query.state_dict())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the weighted ``loss``, and each objective's own under ``losses``."""
        batch["step"] = self.global_step
        keys = (self.seed, self.current_epoch, batch_idx)
        features = encode_plan(self.plan, batch, encode=partial(self._graph.encode, keys=keys))
        outputs = evaluate_objectives(self._objectives(), features, batch)
        total = torch.stack([self.loss_weights[n] * out.loss for n, out in outputs.items()]).sum()
        self._pending.add(outputs)
        self._log_step(total, outputs, len(batch["video_id"]))
        return {"loss": total, "losses": {name: out.loss.detach() for name, out in outputs.items()}}

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self._optimizer, self._groups)
        optimizer.register_step_post_hook(self.finish_step)
        return with_schedule(optimizer, self._scheduler, self)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Keep the statistics equal on all ranks, as evaluation and checkpoints assume.
        distributed.average_in_place(running_statistics(*self.encoders.values()))
        # Still there if the gradient scaler skipped the step.
        self._pending.drop()

    def finish_step(self, optimizer: Optimizer, *_unused: Any) -> None:
        """Move momentum encoders and queue the keys, after each step that the optimizer took."""
        found_inf = getattr(optimizer, "found_inf", None)  # fused optimizers skip by themselves
        if found_inf is not None and found_inf.item():
            return
        objectives = dict(self._objectives())
        self._graph.update(objectives, step=self.global_step, total_steps=self._total_steps)
        self._pending.commit(self._objectives(), self.global_step)

    def setup(self, stage: str) -> None:
        check_synchronised(self.trainer)
        if self._channels_last is None:
            self._graph.pixels = laid_out(self.encoders, self._graph.pixels, self.trainer)
            self.pixels = self._graph.pixels[QUERY]
        prepare_objectives(self._objectives(), self.trainer)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.train()  # Lightning leaves modes as they are
        modes = {one.batchnorm for one in self._graph.momentum.values()}
        check_trainer(self.trainer, device=self.device, synchronised="sync" in modes)
        self._graph.check(self.trainer)
        self._unchecked = True
        self._pending.drop()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        record_network(checkpoint, self.encoders[QUERY])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self._unchecked:
            check_first_batch(self.encoders, self.plan.encoded_views, batch)
        # Makes whatever draws from the global generator (dropout) the same after resuming.
        keys = (self.current_epoch, batch_idx, distributed.rank())
        torch.manual_seed(seed_of(self.seed, "step", *keys))
        if batch_idx == 0 and self.current_epoch == 0 and self._trainer is not None:
            warn_of_long_queues(self.trainer, self._objectives(), videos=len(batch["video_id"]))

    def on_after_backward(self) -> None:
        if self._unchecked:
            check_all_used(self.trainer, self)
        self._unchecked = False

    def _objectives(self) -> Iterator[tuple[str, Objective]]:
        for name, objective in self.objectives.items():
            yield name, cast(Objective, objective)

    def _total_steps(self) -> int:
        if self._trainer is None:
            return 1
        steps_per_epoch, epochs = run_length(self.trainer)
        return round(steps_per_epoch * epochs)

    def _log_step(self, total: Tensor, outputs: Mapping[str, ObjectiveOutput], videos: int) -> None:
        values = {"train/loss": total}
        for name, output in outputs.items():
            metrics = {"loss": output.loss, **output.metrics}
            values |= {f"train/{name}/{key}": value for key, value in metrics.items()}
        if self.log_means(values, videos=videos, shown=["train/loss"]):
            for name, objective in self._objectives():
                state = objective.diagnostics(self.global_step)
                self.log_state({f"train/{name}/{key}": value for key, value in state.items()})
