"""Rows of the source's manifest become rows of the result's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vclr_lightning.data.indexing.known import PROBED
from vclr_lightning.data.manifest import Row

if TYPE_CHECKING:
    from vclr_lightning.data.indexing.journal import Outcome
    from vclr_lightning.data.manifest import Manifest


def prepared_rows(manifest: Manifest, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Return a row for each row of ``manifest`` whose file was re-encoded.

    Ids, groups, splits, labels, windows and spans are those of the source; a clip's seconds count
    from the first frame here as there.

    Args:
        manifest: of the source.
        outcomes: what came of each file, by path.
    """
    groups, splits = manifest.words("group"), manifest.words("split")
    split_codes = manifest.column("split")
    rows = []
    for i in range(len(manifest)):
        values = outcomes[manifest.relative_path(i)].values
        if values is None:
            continue
        start, end = manifest.window(i) or (None, None)
        rows.append(
            Row(
                path=values["file"],
                name=manifest.name(i),
                group=groups[manifest.group_id(i)],
                split=splits[split_codes[i]],
                label=manifest.label(i),
                size=values["size"],
                mtime_ns=values["mtime_ns"],
                start=start,
                end=end,
                spans=manifest.spans(i),
                **{name: values[name] for name in PROBED if name != "damaged"},
                damaged=manifest.value("damaged", i),  # which re-encoding does not mend
            )
        )
    return rows
