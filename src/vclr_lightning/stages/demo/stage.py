"""Pretrain, then show what the frozen features are worth beside untrained ones and chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.screen import show, wrote
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.evaluation import (
    TRIVIAL,
    Encode,
    compare_features,
    extract_seeds,
    frame_encoder,
)
from vclr_lightning.modules import PretrainModule
from vclr_lightning.stages.demo.held_out import held_out
from vclr_lightning.stages.demo.page import write_demo_page
from vclr_lightning.stages.evaluate import Evaluation, evaluate
from vclr_lightning.stages.pretrain import pretrain


def demo(
    *,
    module: PretrainModule,
    data: VideoDataModule,
    directory: str | Path,
    untrained: Sequence[nn.Module] = (),
    trivial: bool = False,
    segments: int = 3,
    standardize: bool = False,
    evaluations: Mapping[str, Evaluation | None] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **pretraining: Any,
) -> dict[str, float]:
    """Train as :func:`~vclr_lightning.stages.pretrain.pretrain` does, then measure.

    Args:
        module: what to train.
        data: on what, with held-out videos; all with labels.
        directory: the run's folder; ``results.json`` and ``report.html`` are written there.
        untrained: networks like the module's, with random weights, to compare with.
        trivial: compare with features that need no network, too.
        segments: parts of a video whose features are compared in order.
        standardize: bring each feature to mean 0 and variance 1 before the linear probe, which is
            fair to features of different scales; the paper's probe takes them as they are.
        evaluations: to end in, of the backbone that the run has exported; see
            :func:`~vclr_lightning.stages.evaluate.evaluate`.
        metadata: plain values to keep in the checkpoints and the results.
        pretraining: the other arguments of the pretraining stage.

    Returns:
        What pretraining returns, and the measures of the trained features.

    Raises:
        UserError: as pretraining does, or the videos have no labels.
    """
    directory = Path(directory)
    for split, table in {"train": data.train, "val": data.val}.items():
        if table is None or not any(table.label(row) >= 0 for row in range(len(table))):
            raise UserError(
                f"the demo measures features by labels, and the videos of split {split} have none; "
                "index a folder with a subfolder for each class, or take stage=pretrain"
            )
    values: dict[str, float] = dict(
        pretrain(module=module, data=data, directory=directory, metadata=metadata, **pretraining)
    )
    if not is_rank_zero():
        return values
    data.trainer = None  # this process alone measures all videos
    random = [
        frame_encoder(network, mean=module.pixels.mean, std=module.pixels.std)
        for network in untrained
    ]
    encoders: dict[str, list[Encode]] = {"VCLR": [module.encode]}
    if random:
        encoders["untrained"] = random
    if trivial:
        encoders |= {name: [encode] for name, encode in TRIVIAL.items()}
    known = extract_seeds(
        encoders, data.frames_loader("train"), segments=segments, description="features, train"
    )
    unseen = extract_seeds(
        encoders, data.frames_loader("val"), segments=segments, description="features, unseen"
    )
    frozen = compare_features(known, unseen, standardize=standardize)
    tasks = held_out(module, data, others={"untrained": random[0]} if random else {})
    show(frozen.table(), tasks.table())
    results: dict[str, Any] = {
        "frozen": frozen.as_dict(),
        "held_out": tasks.as_dict(),
        "last": values,
        "version": (metadata or {}).get("version"),
    }
    with replacing(directory / "results.json") as sink:
        sink.write(json.dumps(results, indent=1).encode())
    shown = [name for name in ("VCLR", "untrained") if name in encoders]
    page = write_demo_page(
        directory / "report.html",
        data,
        directory=directory,
        train={name: known[name][0] for name in shown},
        test={name: unseen[name][0] for name in shown},
        views=module.required_views,
    )
    wrote(page)
    trained = frozen.row("VCLR").values
    values |= {name: numbers[0] for name, numbers in trained.items()}
    if evaluations:
        values |= evaluate(
            evaluations=evaluations,
            directory=directory,
            ckpt=directory / "last.backbone.safetensors",
            untrained=True,
        )
    return values
