"""Extract features, and report where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vclr_lightning import __version__
from vclr_lightning.core.files import replacing
from vclr_lightning.stages.shared.rejected import write_rejected

if TYPE_CHECKING:
    from vclr_lightning.stages.features.extractor import FeatureExtractor


def extract(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    splits: Sequence[str] | str | None = None,
) -> dict[str, float]:
    """Extract the features of some splits, and list what was left out.

    Args:
        features: extracts, or reuses stored features.
        directory: the run's folder; ``features.json``, the folder and provenance of each
            split's features, and ``rejected.csv`` are written there.
        splits: names; ``None`` for all.

    Returns:
        For each split ``NAME/videos`` and ``NAME/rejected``.

    Raises:
        UserError: a split has no videos.
    """
    from vclr_lightning.core.screen import PlainTable, show

    names = [splits] if isinstance(splits, str) else list(splits or features.splits)
    for name in names:
        features.data.split(name)  # a mistake is reported before hours of work
    table = PlainTable(title=f"features of {features.weights}", title_justify="left")
    for column in ("split", "videos", "left out", "labels", "features", "folder"):
        table.add_column(column, overflow="fold")
    values: dict[str, float] = {}
    rejected: dict[str, Any] = {}
    content: dict[str, Any] = {"version": __version__}
    for name in names:
        store = features(name)
        content[name] = {"folder": str(store.folder.absolute()), **store.provenance}
        rejected[name] = store.rejected
        values |= {f"{name}/videos": len(store), f"{name}/rejected": len(store.rejected)}
        shape = " x ".join(map(str, store.features.shape))
        labels = int((store.label >= 0).sum())
        counts = (len(store), len(store.rejected), labels)
        table.add_row(name, *map(str, counts), shape, str(store.folder))
    with replacing(Path(directory) / "features.json") as sink:
        sink.write(json.dumps(content, indent=1).encode())
    write_rejected(Path(directory) / "rejected.csv", rejected)
    show(table)
    return values
