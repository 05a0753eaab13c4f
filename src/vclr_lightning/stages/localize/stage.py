"""Train a network that finds actions in untrimmed videos, and measure its proposals."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback, LightningModule, Logger, Trainer
from vclr_lightning.core.random import seed_of
from vclr_lightning.core.screen import track, wrote
from vclr_lightning.data.localization import (
    AnnotatedVideo,
    LeftOut,
    LocalizationData,
    PositionSet,
    SnippetSet,
    SnippetSource,
    checked,
    place,
    read_annotations,
)
from vclr_lightning.results import Result, Table, present, write_table
from vclr_lightning.stages.localize.results import localization_result, propose, write_submission
from vclr_lightning.stages.pretrain import pretrain
from vclr_lightning.stages.shared.hardware import Hardware

logger = logging.getLogger(__name__)


def localize(
    *,
    snippets: SnippetSource,
    model: Callable[..., nn.Module],
    module: Callable[[nn.Module], LightningModule],
    trainer: Callable[..., Trainer],
    callbacks: Mapping[str, Callback | None],
    loggers: Mapping[str, Logger | None],
    directory: str | Path,
    annotations: str | Path | Mapping[str, str] | None = None,
    positions: int = 100,
    batch_size: int = 16,
    train_split: str = "train",
    test_split: str = "val",
    hardware: Hardware | None = None,
    pictures: int = 12,
    shown: int = 5,
    seed: int = 0,
    checkpoint: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Result:
    """Train a boundary-matching network on snippet features (Section 4.4 of the paper).

    Writes ``proposals.json`` (ActivityNet's form), ``localization.json`` (the measures and their
    curve), ``report.html`` and, where something was, ``left_out.csv``.

    Args:
        snippets: gives the features.
        model: builds the network from ``num_features`` and ``positions``.
        module: builds what is trained around it.
        trainer, callbacks, loggers, checkpoint: see :func:`~vclr_lightning.stages.pretrain`.
        directory: the run's folder.
        annotations: see :func:`~vclr_lightning.data.localization.read_annotations`; ``None`` for
            the spans in the videos' manifest.
        positions: T, to which a video's snippets are resampled.
        batch_size: videos per step.
        train_split: what is trained on.
        test_split: where proposals are made.
        hardware: where they are made.
        pictures: videos on the page, drawn by the seed.
        shown: proposals of each.
        seed: of order, drawn cells, first weights and the page.
        metadata: plain values to keep with the results.

    Returns:
        ``ar1``, ``ar5``, ``ar10``, ``ar100`` and ``auc``, fractions, where there is truth; the
        same of segments drawn at random as ``chance/NAME``; how many videos are trained
        on and measured as ``train/videos`` and ``test/videos``, and how many are not as
        ``train/left_out`` and ``test/left_out``; and the last values that training logged.

    Raises:
        UserError: there are no annotations or no features of them, or they do not fit together.
    """
    for name, value, least in (("pictures", pictures, 0), ("shown", shown, 1)):
        if value < least:
            raise UserError(f"{name}={value} of the localisation must be {least} or more")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    known = snippets.annotations() if annotations is None else read_annotations(annotations)
    train, test, features, left_out = _wanted(known, snippets, train_split, test_split)
    sets = []
    for split, videos in ((train_split, train), (test_split, test)):
        placed, more = place(
            videos,
            features,
            positions=positions,
            folder=directory,
            track=partial(track, description=f"snippets, {split}", show=is_rank_zero()),
        )
        left_out += more
        if not len(placed):
            names = {video.name for video in videos}
            lost = next((one for one in left_out if one.video in names), None)
            if is_rank_zero():
                write_table(_left_out_table(left_out), directory / "left_out.csv")
            raise UserError(
                f"none of the {len(videos)} videos of split {split} has features"
                + (f"; the first, {lost.video}: {lost.reason}" if lost else "")
                + f"; {directory / 'left_out.csv'} lists all: names of annotations and of files "
                "have to be the same"
            )
        sets.append(placed)
    learned, tested = sets
    if learned.features.shape != (len(learned), *tested.features.shape[1:]):
        raise UserError(
            f"the snippets of split {train_split} have {learned.features.shape[2]} features, those "
            f"of {test_split} {tested.features.shape[2]}; give features of one network"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "localize"))
        network = model(num_features=learned.features.shape[2], positions=positions)
    trained = module(network)
    notes = _notes(left_out, learned, tested)
    if is_rank_zero():
        write_table(_left_out_table(left_out), directory / "left_out.csv")
    fitted = pretrain(
        module=trained,
        data=LocalizationData(learned, batch_size=batch_size, seed=seed),
        trainer=trainer,
        callbacks=callbacks,
        loggers=loggers,
        directory=directory,
        checkpoint=checkpoint,
        metadata=metadata,
    )
    if not is_rank_zero():
        return fitted
    proposals = propose(
        network, tested, hardware=hardware or Hardware(), batch_size=batch_size, show=True
    )
    write_submission(directory / "proposals.json", tested.videos, proposals)
    wrote(directory / "proposals.json")
    annotated = [row for row, video in enumerate(tested.videos) if len(video.spans)]
    numbers: dict[str, float] = dict(fitted)
    for role, split, used in (
        ("train", train_split, len(learned)),
        ("test", test_split, len(annotated)),
    ):
        there = sum(video.split == split for video in known)
        numbers |= {f"{role}/videos": used, f"{role}/left_out": there - used}
    if not annotated:
        logger.info("none of the %d videos is annotated: nothing is measured", len(tested))
        for file in ("localization.json", "report.html"):  # of an earlier measure
            (directory / file).unlink(missing_ok=True)
        return replace(fitted, numbers=numbers)
    return present(
        localization_result(
            [tested.videos[row] for row in annotated],
            [proposals[row] for row in annotated],
            notes=notes,
            record={"features": dict(features.provenance)},
            numbers=numbers,
            pictures=pictures,
            shown=shown,
            seed=seed,
        ),
        directory,
    )


def _wanted(
    known: Sequence[AnnotatedVideo], snippets: SnippetSource, train_split: str, test_split: str
) -> tuple[list[AnnotatedVideo], list[AnnotatedVideo], SnippetSet, list[LeftOut]]:
    """Return what to train on, where to propose, the features of both, and what was left out."""
    chosen = [video for video in known if video.split in (train_split, test_split)]
    for split in (train_split, test_split):
        if not any(video.split == split for video in chosen):
            names = ", ".join(sorted({video.split for video in known})) or "none"
            raise UserError(f"no video of split {split} is annotated; there are {names}")
    videos, left_out = checked(chosen)
    train = [video for video in videos if video.split == train_split]
    test = [video for video in videos if video.split == test_split]
    left_out += [
        LeftOut(video.name, "video left out of training", "it has no annotation")
        for video in train
        if not len(video.spans)
    ]
    train = [video for video in train if len(video.spans)]
    left_out += [
        LeftOut(video.name, "video left out of the measure", "it has no annotation")
        for video in test
        if not len(video.spans)
    ]
    unique = {video.name: video for video in [*train, *test]}
    features = snippets.open(list(unique.values()))
    return train, test, features, [*left_out, *features.left_out]


def _left_out_table(left_out: Sequence[LeftOut]) -> Table:
    return Table(columns=["video", "what", "reason"], rows=left_out, file="left_out", shown="file")


def _notes(left_out: Sequence[LeftOut], train: PositionSet, test: PositionSet) -> list[str]:
    counts = Counter(item.kind for item in left_out)
    first = {item.kind: item for item in reversed(left_out)}
    notes = [
        f"{kind}: {number}; the first, {first[kind].video}: {first[kind].reason}. All are listed "
        "in left_out.csv."
        for kind, number in counts.items()
    ]
    shared = {v.name for v in train.videos} & {v.name for v in test.videos}
    if shared:
        notes.append(f"{len(shared)} videos are trained on and measured, both.")
    return notes
