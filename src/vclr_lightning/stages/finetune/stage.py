"""Train a classifier of videos on a pretrained backbone, and test it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vclr_lightning import __version__
from vclr_lightning.callbacks.video_scores import ScoredVideos, VideoViews, score_videos
from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.lightning import Callback, Logger, Trainer
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.protocols import ClipTransform, Sampler
from vclr_lightning.evaluation.probe_result import ProbeResult
from vclr_lightning.modules.clip_sizes import check_clip_sizes
from vclr_lightning.modules.finetuning import FinetuneModule
from vclr_lightning.results import Result, percent, present
from vclr_lightning.stages.finetune.classes import (
    Classes,
    classes_of,
    labelled_only,
    long_only,
    split_to_test,
)
from vclr_lightning.stages.pretrain import pretrain
from vclr_lightning.stages.shared.classification import classification
from vclr_lightning.stages.shared.labelled import (
    rejected_table,
    shared_groups_note,
    unindexed,
    unindexed_note,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """The learning rate of a published recipe, and its global batch.

    Args:
        lr: of the recipe.
        batch_size: videos per step that ``lr`` is for.
    """

    lr: float
    batch_size: int

    def scaled(self, batch_size: int) -> float:
        """Return the learning rate for another global batch.

        Example:
            >>> FinetuneRecipe(lr=0.02, batch_size=128).scaled(64)
            0.01
        """
        return self.lr * batch_size / self.batch_size


def finetune(
    *,
    module: Callable[..., FinetuneModule],
    data: VideoDataModule,
    sampler: Sampler,
    transform: ClipTransform,
    test: VideoViews | None,
    trainer: Callable[..., Trainer],
    callbacks: Mapping[str, Callback | None],
    loggers: Mapping[str, Logger | None],
    directory: str | Path,
    num_classes: int | None = None,
    test_split: str | None = None,
    recipe: FinetuneRecipe | None = None,
    init: str | Path | None = None,
    monitor: str | None = None,
    checkpoint: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Result:
    """Train, or continue from ``checkpoint``; then test the last epoch's weights.

    Section 4.2 of the paper. Writes beside the checkpoints ``finetune.json``,
    ``predictions.csv``, ``confusion.csv``, ``classes.csv``, ``report.html`` and, where there are
    any, ``test_rejected.csv``.

    Args:
        module: takes ``num_classes`` and ``class_names``, returns what to train.
        data: on what; training videos without a label are left out, counted in the log.
        sampler: draws the view ``segments`` of a training video.
        transform: augments it, all its frames alike.
        test: what to look at in each test video; ``None`` leaves testing out.
        trainer: builds the trainer from ``callbacks``, ``loggers`` and ``directory``.
        callbacks: by name; ``None`` where one is left out.
        loggers: by name.
        directory: the run's folder.
        num_classes: of the classifier; ``None`` for those that the videos have.
        test_split: what it is tested on; ``None``: ``val`` where there is one, else ``test``.
        recipe: whose learning rate was scaled to the data's batch, to say so in the log.
        init: weights of the backbone to start from, where there is no ``checkpoint``.
        monitor: name of the measure to return first.
        checkpoint: to go on from.
        metadata: plain values to keep in the checkpoints.

    Returns:
        Of the test videos ``top1``, ``top5`` with more than five classes, ``mean_class``, and their
        chance levels; ``train/videos``, ``test/videos`` and ``test/left_out``; and training's log.

    Raises:
        UserError: weights or labels do not fit, or whatever a part of the run finds wrong.
    """
    split = None if test is None else split_to_test(data, test_split)
    table = None if split is None else data.split(split)
    least = 1 if test is None or test.windows is None else test.windows.min_frames
    table, short = long_only(table, least)
    classes = classes_of(data.train, table, num_classes=num_classes)
    whole, data.train = len(data.train), labelled_only(data.train)
    if short:
        classes = replace(classes, notes=[*classes.notes, short])
    notes = list(classes.notes)
    if recipe is not None and recipe.batch_size != data.batch_size:
        notes.append(
            f"learning rate {recipe.scaled(data.batch_size):g}: the recipe's {recipe.lr:g} for "
            f"{recipe.batch_size} videos a step, scaled to batch_size={data.batch_size}"
        )
    official = data.splits.get("train", ())
    if split == "test" and (held := len(official) - whole) > 0:
        notes.append(
            f"{held} of {len(official)} training videos are held out to watch val/top1; to train "
            "on all of them give data.holdout=0 callbacks.online=null monitor=null"
        )
    for note in notes if is_rank_zero() else ():
        logger.info("%s", note)
    share = dict.fromkeys(sampler.views, "video")
    data.draw_with(samplers={"segments": sampler}, transform=transform, share=share)
    network = module(num_classes=classes.count, class_names=classes.names)
    if test is not None and network.shift is None:
        check_clip_sizes(network.query_encoder, [(test.frames_per_clip, test.transform.size)])
    built: list[Trainer] = []

    def build(**options: Any) -> Trainer:
        built.append(trainer(**options))
        return built[-1]

    trained = pretrain(
        module=network,
        data=data,
        trainer=build,
        callbacks=callbacks,
        loggers=loggers,
        directory=directory,
        init=init,
        monitor=monitor,
        checkpoint=checkpoint,
        metadata=metadata,
    )
    if test is None or split is None or table is None:
        return trained
    device = built[0].strategy.root_device
    network.to(device)
    with built[0].precision_plugin.forward_context():
        scored = score_videos(network, data, table, views=test, device=device)
    if not is_rank_zero():
        return trained
    provenance = {
        "network": type(network.query_encoder).__name__,
        "initial weights": "none" if init is None else str(init),
        "trained": "the classifier alone" if network.frozen else "all layers",
        "dropout": f"{network.dropout.p:g}",
        "version": __version__,
    }
    settings = f"{network.head.upper()}{', frozen' if network.frozen else ''}, {test.summary}"
    tested = _result(scored, data, split, table, classes, settings, provenance, trained)
    return present(tested, directory)


def _result(
    scored: ScoredVideos,
    data: VideoDataModule,
    split: str,
    test: Any,
    classes: Classes,
    settings: str,
    provenance: Mapping[str, str],
    trained: Mapping[str, float],
) -> Result:
    """Return the accuracies of a tested classifier, its tables, and what training logged."""
    train: Any = data.train
    known = scored.label >= 0
    result = ProbeResult(
        scores=scored.scores[known],
        columns=torch.arange(classes.count),
        label=scored.label[known],
        train_label=torch.tensor(train.labels),
        settings=settings,
    )
    rows = scored.index[known].tolist()
    scalars, content = classification(
        result,
        classes=classes.names,
        num_classes=classes.count,
        paths=[test.relative_path(row) for row in rows],
        groups=[test.group_id(row) for row in rows],
    )
    lost = unindexed(data, split)
    notes = [unindexed_note(lost, len(test), "test", "test_rejected.csv")] if lost else []
    if bad := len(scored.rejected):
        notes.append(f"{bad} test videos cannot be read; left out, and in test_rejected.csv.")
    notes += classes.notes
    groups = torch.tensor(train.group_ids), torch.tensor(test.group_ids)
    notes += shared_groups_note(*groups, easy="easy to recognise")
    gone = [{"video_id": "", "path": one.path, "reason": one.reason} for one in lost]
    rejected = [*gone, *scored.rejected]
    return Result(
        title="Finetuned classification",
        summary=(
            f"A network finetuned on {len(train)} videos ({settings}) classifies "
            f"{percent(result.accuracies['top1'])}% of {len(result)} test videos correctly; chance "
            f"level is {percent(result.chance['top1'])}%."
        ),
        scalars=scalars,
        notes=notes,
        content=[*content, rejected_table({split: rejected}, file="test_rejected")],
        provenance=provenance,
        provenance_title="The network",
        numbers={
            **trained,
            "train/videos": len(train),
            "test/videos": len(result),
            "train/groups": len(set(train.group_ids.tolist())),
            "test/groups": len({test.group_id(row) for row in rows}),
            "test/left_out": len(rejected) + len(data.split(split)) - len(test),
        },
        file="finetune",
        record={
            "accuracies": result.accuracies,
            "chance": result.chance,
            "settings": settings,
            "train": {"videos": len(train)},
            "test": {"split": split, "videos": len(result)},
            "facts": dict(provenance),
        },
    )
