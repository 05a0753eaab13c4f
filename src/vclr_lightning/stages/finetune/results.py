"""What a finetuned classifier came to: tables in the terminal, files, a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vclr_lightning.callbacks.video_scores import ScoredVideos
from vclr_lightning.core.files import replacing
from vclr_lightning.core.screen import show, wrote
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.evaluation.neighbour_tables import class_name, confusion_rows, percent
from vclr_lightning.evaluation.outcomes import MEASURES
from vclr_lightning.evaluation.probe_result import ProbeResult
from vclr_lightning.evaluation.probe_tables import (
    accuracy_table,
    class_rows,
    class_table,
    write_class_results,
    write_confusion,
    write_predictions,
)
from vclr_lightning.evaluation.retrieval_result import confusions
from vclr_lightning.report.content import Score
from vclr_lightning.report.probe import ProbePage, write_probe_page
from vclr_lightning.stages.finetune.classes import Classes
from vclr_lightning.stages.shared.rejected import write_rejected
from vclr_lightning.stages.shared.remarks import unindexed_words

_CONFUSIONS = 12  # pairs of classes on the page


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """A tested classifier.

    Attributes:
        scored: scores of the test videos.
        train, test: manifests of the videos.
        split: name of the test videos' split.
        classes: of the classifier.
        settings: of classifier and test, in words.
        facts: where the network comes from, as text.
        unindexed: test videos that did not get into the manifest.
    """

    scored: ScoredVideos
    train: Any
    test: Any
    split: str
    classes: Classes
    settings: str
    facts: Mapping[str, str] = field(default_factory=dict)
    unindexed: Sequence[Rejected] = ()

    @property
    def result(self) -> ProbeResult:
        """Scores and labels of the test videos that have a label."""
        known = self.scored.label >= 0
        return ProbeResult(
            scores=self.scored.scores[known],
            columns=torch.arange(self.classes.count),
            label=self.scored.label[known],
            train_label=torch.tensor(self.train.labels),
            settings=self.settings,
        )

    @property
    def paths(self) -> list[str]:
        """Files of the videos of :attr:`result`."""
        index = self.scored.index[self.scored.label >= 0]
        return [self.test.relative_path(row) for row in index.tolist()]

    @property
    def notes(self) -> list[str]:
        """What makes the numbers easier or harder, a sentence each."""
        found = list(self.classes.notes)
        if bad := len(self.scored.rejected):
            found.insert(
                0,
                f"{bad} test videos cannot be read and are left out; they are listed in "
                "test_rejected.csv.",
            )
        if self.unindexed:
            there = len(self.test)
            found.insert(0, unindexed_words(self.unindexed, there, "test", "test_rejected.csv"))
        shared = torch.isin(torch.tensor(self.test.group_ids), torch.tensor(self.train.group_ids))
        if count := int(shared.sum()):
            found.append(
                f"{count} test videos share their group (source) with a training video, which "
                "makes them easy."
            )
        return found


def write_results(directory: Path, done: Finetuned) -> dict[str, float]:
    """Write the files of a tested classifier, and print its tables.

    Returns:
        Its accuracies, what chance would reach as ``chance/NAME``, and how many videos there are
        as ``train/videos`` and ``test/videos``, and how many test videos were left out as
        ``test/left_out``.

    Raises:
        UserError: a file cannot be written.
    """
    result, names = done.result, done.classes.names
    confusion = result.confusion(done.classes.count)
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "accuracies": result.accuracies,
        "chance": result.chance,
        "settings": done.settings,
        "train": {"videos": len(done.train)},
        "test": {"split": done.split, "videos": len(result)},
        "notes": done.notes,
        "facts": dict(done.facts),
    }
    with replacing(directory / "finetune.json") as sink:
        sink.write(json.dumps(content, indent=1).encode())
    write_predictions(directory / "predictions.csv", result, paths=done.paths, classes=names)
    write_confusion(directory / "confusion.csv", confusion, names)
    write_class_results(directory / "classes.csv", result, names)
    lost = [{"video_id": "", "path": one.path, "reason": one.reason} for one in done.unindexed]
    write_rejected(directory / "test_rejected.csv", {done.split: [*lost, *done.scored.rejected]})
    present = torch.unique(torch.cat([result.label, result.predicted]))
    accuracies, chance = result.accuracies, result.chance
    mistakes = confusions(result.label, result.predicted)[:_CONFUSIONS]
    page = ProbePage(
        title="Finetuned classification",
        summary=(
            f"A network finetuned on {len(done.train)} videos ({done.settings}) classifies "
            f"{percent(accuracies['top1'])}% of {len(result)} test videos correctly; chance level "
            f"is {percent(chance['top1'])}%."
        ),
        scores=[Score(MEASURES[name], share, chance[name]) for name, share in accuracies.items()],
        notes=done.notes,
        confusion=confusion[present][:, present],
        confusions=confusion_rows(mistakes, names, taken="predicted class") if mistakes else (),
        names=[class_name(label, names) for label in present.tolist()],
        classes=class_rows(result.by_class(), names),
        facts=done.facts,
        facts_title="The network",
    )
    written = write_probe_page(directory / "report.html", page)
    show(accuracy_table(result), class_table(result, names))
    wrote(written)
    return {
        **accuracies,
        **{f"chance/{name}": share for name, share in chance.items()},
        "train/videos": len(done.train),
        "test/videos": len(result),
        "test/left_out": len(done.unindexed) + len(done.scored.rejected),
    }
