"""Re-encode the files that have not been, or have changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.indexing.journal import Journal, Outcome
from vclr_lightning.data.indexing.outcomes import look_at
from vclr_lightning.data.indexing.pool import probe_all
from vclr_lightning.data.prepare.names import clashing_names, prepared_name
from vclr_lightning.data.prepare.recipe import Recipe

_LEAST_LIMIT = 900.0  # seconds for one file
_PER_SECOND = 60.0  # seconds for each of the video; 4K takes about ten


def encode_all(
    paths: Sequence[str],
    *,
    root: Path,
    out: Path,
    recipe: Recipe,
    journal: Journal,
    seconds: Mapping[str, float],
    workers: int,
    show: bool,
) -> tuple[dict[str, Outcome], int]:
    """Re-encode what is not there yet; failures of an earlier run are tried again.

    Args:
        paths: of the sources below ``root``, each once.
        root: folder of the sources.
        out: folder of the result.
        recipe: how to encode.
        journal: what came of earlier runs, to which each new outcome is added at once.
        seconds: how long videos are, where that is known.
        workers: number of processes.
        show: whether to show progress.

    Returns:
        The outcome of each path, and how many of them an earlier run had done.

    Raises:
        UserError: ``out`` cannot be written to, or is full.
    """
    known = journal.read()
    clashing = clashing_names(paths)
    seen = look_at(root, paths, folders=False, workers=workers, show=show)
    done = {now.path: now for now in seen}
    earlier = 0
    new: dict[Path, Outcome] = {}
    for now in seen:
        if now.reason:
            continue
        before = known.get(now.path)
        if before is not None and _is_there(before, now, out, clashing):
            done[now.path] = before
            earlier += 1
        else:
            new[root / now.path] = now
    if not new:
        return done, earlier
    settings = {
        "root": str(root),
        "out": str(out),
        "clashing": sorted(clashing),
        "recipe": recipe.as_dict(),
    }
    number = failed = 0
    with journal, progress_bar("re-encoding videos", len(new), show=show) as update:
        answers = probe_all(
            list(new),
            settings=settings,
            workers=workers,
            limit=lambda path: _LEAST_LIMIT + _PER_SECOND * seconds.get(new[path].path, 0.0),
            module="vclr_lightning.data.prepare.worker",
            waiting=lambda: update(number, f"{failed:,} failed"),
        )
        for number, (path, answer) in enumerate(answers, 1):
            if "fatal" in answer:
                raise UserError(f"{answer['fatal']}; the same command continues from here")
            now = new[path]
            answer.pop("passing", None)  # whatever failed is tried again
            outcome = Outcome(now.path, now.size, now.mtime_ns, **answer)
            journal.add(outcome)
            done[now.path] = outcome
            failed += outcome.reason is not None
            update(number, f"{failed:,} failed")
    return done, earlier


def _is_there(before: Outcome, now: Outcome, out: Path, clashing: set[str]) -> bool:
    """Whether the source is as it was, and its result too."""
    values = before.values
    if values is None or (before.size, before.mtime_ns) != (now.size, now.mtime_ns):
        return False
    if values.get("file") != prepared_name(now.path, clashing):
        return False
    try:
        stat = (out / values["file"]).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (values.get("size"), values.get("mtime_ns"))
