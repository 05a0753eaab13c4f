"""Write the shards that are not there yet."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vclr_lightning.core.files import clear_leftovers, replacing
from vclr_lightning.core.reading import read_record, write_record
from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.faults import retried
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.shards.plan import ShardPlan
from vclr_lightning.data.shards.tar import ShardWriter


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a shard.

    Attributes:
        digest: of its plan.
        size: bytes of the shard.
        starts: position of each video's first byte, by path.
        failed: why a video is not in it, by path.
    """

    digest: str
    size: int
    starts: Mapping[str, int]
    failed: Mapping[str, str]


def write_shards(
    plans: Sequence[ShardPlan],
    *,
    root: Path,
    out: Path,
    about: Mapping[str, dict[str, Any]],
    show: bool,
) -> tuple[list[Written], int]:
    """Write shards into ``out``; each appears when it is complete.

    Args:
        plans: what goes where.
        root: folder of the sources.
        out: folder of the result.
        about: what the shards say of each video, by path.
        show: whether to show progress.

    Returns:
        What became of each, and how many an earlier run had written.

    Raises:
        UserError: ``out`` cannot be written to, or is full.
    """
    for partial in out.glob(".*.tar.*"):  # what killed runs left half written
        partial.unlink(missing_ok=True)
    written: list[Written] = []
    earlier = done = failed = 0
    total = sum(len(plan.files) for plan in plans)
    with progress_bar("storing videos", total, show=show) as update:

        def moved(broken: int) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + broken
            update(done, f"{failed:,} failed")

        clear_leftovers(out / ".shards")
        for plan in plans:
            note = out / ".shards" / f"{plan.name}.json"
            digest = plan.digest(about)
            known = _known(note, out / plan.name, digest)
            if known is not None:
                earlier += 1
                for _ in plan.files:
                    moved(False)
            else:
                _withdraw(out)
                starts, refused = {}, {}
                with replacing(out / plan.name) as sink:
                    writer = ShardWriter(sink)
                    for number, file in enumerate(plan.files, plan.first):
                        try:
                            starts[file.path] = retried(
                                functools.partial(
                                    writer.add,
                                    number,
                                    root / file.path,
                                    size=file.size,
                                    about=about[file.path],
                                ),
                                after=(VideoError,),
                            )
                        except VideoError as error:
                            refused[file.path] = str(error)
                        moved(file.path in refused)
                    writer.finish()
                    size = sink.tell()
                known = Written(digest, size, starts, refused)
                write_record(note, asdict(known))
            written.append(known)
    _remove_others(out, {plan.name for plan in plans})
    return written, earlier


def _known(note: Path, shard: Path, digest: str) -> Written | None:
    """What an earlier run wrote, if that is what would be written now, and complete."""
    try:
        known = Written(**(read_record(note) or {}))
        size = shard.stat().st_size
    except (OSError, TypeError):
        return None
    same = known.digest == digest and known.size == size and not known.failed
    return known if same else None


def _withdraw(out: Path) -> None:
    """Remove the manifest of an earlier run, whose rows would lead into other videos."""
    (out / "manifest.arrow").unlink(missing_ok=True)


def _remove_others(out: Path, names: set[str]) -> None:
    """Remove shards of an earlier run that no row leads to any more."""
    for note in (out / ".shards").glob("*.tar.json"):
        if note.stem not in names:
            _withdraw(out)
            (out / note.stem).unlink(missing_ok=True)
            note.unlink(missing_ok=True)
