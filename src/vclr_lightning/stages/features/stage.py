"""Extract the features of some splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.distributed import rank
from vclr_lightning.results import Result, Table, present
from vclr_lightning.stages.shared.labelled import rejected_table

if TYPE_CHECKING:
    from vclr_lightning.stages.features.extractor import FeatureExtractor


def extract(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    splits: Sequence[str] | str | None = None,
) -> Result:
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
    names = [splits] if isinstance(splits, str) else list(splits or features.splits)
    for name in names:
        features.data.split(name)  # a mistake is reported before hours of work
    stores = {name: features(name) for name in names}
    table = Table(
        title="Features",
        columns=["split", "videos", "left out", "labels", "features", "folder"],
        rows=[
            (
                name,
                len(store),
                len(store.rejected),
                int((store.label >= 0).sum()),
                " x ".join(map(str, store.features.shape)),
                str(store.folder),
            )
            for name, store in stores.items()
        ],
    )
    rejected = rejected_table({name: store.rejected for name, store in stores.items()})
    result = Result(
        title="Features",
        content=[table, rejected],
        numbers={
            f"{name}/{what}": number
            for name, store in stores.items()
            for what, number in (("videos", len(store)), ("rejected", len(store.rejected)))
        },
        file="features",
        record={
            name: {"folder": str(store.folder.absolute()), **store.provenance}
            for name, store in stores.items()
        },
        page="",
    )
    return present(result, directory) if rank() == 0 else result
