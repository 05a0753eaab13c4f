"""Pretrain, then show what the frozen features are worth next to untrained ones and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from torch import nn

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.evaluation import (
    TRIVIAL,
    Encode,
    FrozenTable,
    compare_features,
    extract_seeds,
    frame_encoder,
)
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder, VideoLevel
from vclr_lightning.results import Chart, Result, Scalar, present
from vclr_lightning.results.curves import charts_of, read_metrics
from vclr_lightning.stages.demo.held_out import held_out
from vclr_lightning.stages.demo.sample_pictures import query_pictures, tuple_pictures
from vclr_lightning.stages.evaluate import Evaluation, evaluate
from vclr_lightning.stages.pretrain import pretrain
from vclr_lightning.stages.shared.run_folder import held_out_scalars, run_settings
from vclr_lightning.stages.shared.run_report import frozen_content, training_content

_VCLR = (InterFrame, IntraFrame, VideoLevel, TemporalOrder)
_ORDER_MARGIN = 0.05  # above chance, from which on the order counts as learned


def demo(
    *,
    module: PretrainModule,
    data: VideoDataModule,
    directory: str | Path,
    untrained: Sequence[nn.Module] = (),
    trivial: bool = False,
    segments: int = 3,
    draws: int = 1,
    standardize: bool = False,
    evaluations: Mapping[str, Evaluation | None] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **pretraining: Any,
) -> Result:
    """Train as :func:`~vclr_lightning.stages.pretrain.pretrain` does, then measure the features.

    Args:
        module: what to train.
        data: on what, with held-out videos. Without labels only what needs none is measured.
        directory: the run's folder; ``results.json`` and ``report.html`` are written there.
        untrained: networks like the module's, with random weights, to compare with.
        trivial: compare with features that need no network, too.
        segments: parts of a video whose features are compared in order.
        draws: pairs of draws of each held-out video for the tasks without labels.
        standardize: bring each feature to mean 0 and variance 1 before the linear probe, which is
            fair to features of different scales; the paper's probe takes them as they are.
        evaluations: to end in, where there are labels, of the backbone that the run has exported;
            see :func:`~vclr_lightning.stages.evaluate.evaluate`.
        metadata: plain values to keep in the checkpoints and the results.
        pretraining: the other arguments of the pretraining stage.

    Returns:
        What pretraining returns, and the measures of the trained features.

    Raises:
        UserError: as pretraining does, or no videos are held out.
    """
    directory = Path(directory)
    if data.val is None:
        raise UserError("no videos are held out to measure on; give data.holdout=0.25")
    splits = (data.train, data.val)
    labelled = all(any(table.label(row) >= 0 for row in range(len(table))) for table in splits)
    trained = pretrain(
        module=module, data=data, directory=directory, metadata=metadata, **pretraining
    )
    if not is_rank_zero():
        return trained
    data.trainer = None  # this process alone measures all videos
    random = [
        frame_encoder(network, mean=module.pixels.mean, std=module.pixels.std)
        for network in untrained
    ]
    vclr = all(type(one) in _VCLR for one in module.objectives.values())
    own = "VCLR" if vclr else "this method"
    encoders: dict[str, list[Encode]] = {own: [module.encode]}
    if random:
        encoders["untrained"] = random
    if trivial:
        encoders |= {name: [encode] for name, encode in TRIVIAL.items()}
    others = {"untrained": random[0]} if random else {}
    tasks = held_out(module, data, others=others, name=own, draws=draws)
    said, content = found_without_labels(tasks), []
    record: dict[str, Any] = {"held_out": tasks, "last": dict(trained)}
    measures: dict[str, float] = {}
    if labelled:
        known, unseen = (
            extract_seeds(
                encoders,
                data.frames_loader(split),
                segments=segments,
                description=f"features, {split}",
            )
            for split in ("train", "val")
        )
        frozen = compare_features(known, unseen, standardize=standardize)
        shown = [name for name in (own, "untrained") if name in encoders]
        found = [{name: features[name][0] for name in shown} for features in (known, unseen)]
        said, content = summary(frozen), [*frozen_content(frozen), query_pictures(data, *found)]
        record["frozen"] = frozen.as_dict()
        measures = {name: values[0] for name, values in frozen.row(own).values.items()}
    metrics = directory / "metrics.csv"
    charts = charts_of(read_metrics(metrics)) if metrics.exists() else []
    scalars = list(held_out_scalars(tasks))
    result = present(
        Result(
            title=f"What a network learned from {len(data.train)} videos without labels",
            summary=said,
            scalars=scalars,
            content=[
                *content,
                *training_content(charts, trained, text=" ".join(findings(scalars, charts))),
                *tuple_pictures(data, module.required_views),
            ],
            provenance=run_settings(directory),
            provenance_title="The run",
            file="results",
            record=record,
        ),
        directory,
    )
    evaluated = Result(title="")
    if evaluations and labelled:
        evaluated = evaluate(
            evaluations=evaluations,
            directory=directory,
            ckpt=directory / "last.backbone.safetensors",
            untrained=True,
        )
    numbers = {**trained, **measures, **evaluated}
    return replace(result, numbers=numbers, parts=evaluated.parts)


def found_without_labels(tasks: Mapping[str, Any]) -> str:
    """Say in a sentence how often a network finds the same video again, next to the others.

    Example:
        >>> found_without_labels({"videos": 40, "instance_chance": 0.025,
        ...     "instance_r1": {"VCLR": 0.5, "untrained": 0.175}})
        'Of 40 unseen videos, another draw of the same one is found: 50% by VCLR, 17.5% by \
untrained, 2.5% by chance.'
    """
    shares = {**tasks["instance_r1"], "chance": tasks["instance_chance"]}
    parts = ", ".join(f"{100 * share:.3g}% by {name}" for name, share in shares.items())
    return f"Of {tasks['videos']} unseen videos, another draw of the same one is found: {parts}."


def summary(frozen: FrozenTable) -> str:
    """Say in a sentence what the first row of a table reaches, next to the others.

    Example:
        >>> from vclr_lightning.evaluation import FrozenRow
        >>> values = {"VCLR": 0.5, "chance": 0.125}
        >>> rows = tuple(FrozenRow(name, {"probe_ordered": (v,)}) for name, v in values.items())
        >>> summary(FrozenTable(rows, 80, 20, 3))
        'A linear probe predicts the action of 20 unseen videos: 50% correct from the features of \
VCLR, 12.5% at chance level.'
    """
    shares = {row.name: 100 * mean(row.values["probe_ordered"]) for row in frozen.rows}
    first = next(iter(shares))
    parts = [f"{shares[first]:.3g}% correct from the features of {first}"]
    if "untrained" in shares:
        parts.append(f"{shares['untrained']:.3g}% from those of the same network untrained")
    parts.append(f"{shares['chance']:.3g}% at chance level")
    ahead = next((row.ahead for row in frozen.rows if row.name == "untrained"), {})
    verdict = ""
    if "probe_ordered" in ahead and ahead["probe_ordered"][1] <= 0 <= ahead["probe_ordered"][2]:
        verdict = " Over the groups of these videos, that is no difference from the untrained ones."
    return (
        f"A linear probe predicts the action of {frozen.test_videos} unseen videos: "
        f"{', '.join(parts)}.{verdict}"
    )


def findings(scalars: Sequence[Scalar], charts: Sequence[Chart]) -> list[str]:
    """Explain, a sentence each, what in a run's numbers and curves looks worse than it is."""
    found = []
    order = next((one for one in scalars if one.name == "order"), None)
    if order is not None and order.value < (order.chance or 0) + _ORDER_MARGIN:
        found.append("The order loss has not learned its task in the steps of this run.")
    if any("loss" in chart.title for chart in charts):
        found.append(
            "A contrastive loss may rise while the features improve: as the learning rate falls, "
            "the queue's older keys come from an encoder ever more like the present one, and are "
            "no longer distinguished from the positive by their age."
        )
    return found
