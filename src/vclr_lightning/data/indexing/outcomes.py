"""Find out about files: what is known already, and the rest by probing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.indexing.journal import Journal, Outcome
from vclr_lightning.data.indexing.pool import probe_all

_CHUNK = 512
_PER_PROCESS = 16  # files worth the start of one more process


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def look_at(
    root: Path, paths: Sequence[str], *, folders: bool, workers: int, show: bool
) -> list[Outcome]:
    """Return size and time of each file, or folder of frames, or the reason why there is none.

    Threads make the round trips of a network file system overlap.
    """
    chunks = [paths[k : k + _CHUNK] for k in range(0, len(paths), _CHUNK)]
    seen: list[Outcome] = []
    with (
        progress_bar("looking at files", len(paths), show=show) as update,
        ThreadPoolExecutor(4 * workers) as threads,
    ):
        for part in threads.map(
            lambda chunk: [_look(root, path, folders) for path in chunk], chunks
        ):
            seen.extend(part)
            update(len(seen), "")
    return seen


def _look(root: Path, path: str, folder: bool) -> Outcome:
    try:
        path.encode()
        stat = os.stat(os.path.join(root, path))
    except UnicodeEncodeError:
        return Outcome(path, -1, -1, reason="its name is not valid UTF-8; rename it")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return Outcome(path, -1, -1, reason="no such file" if missing else str(error.strerror))
    if folder and not S_ISDIR(stat.st_mode):
        return Outcome(path, -1, -1, reason="is no folder of frames")
    if not folder and not S_ISREG(stat.st_mode):
        return Outcome(path, -1, -1, reason="is no file; folders of frames need their template")
    # Frames in a folder may be repaired without a trace in the folder itself.
    return Outcome(path, stat.st_size, stat.st_mtime_ns, -1 if folder else stat.st_ctime_ns)


def find_out(
    root: Path,
    seen: Sequence[Outcome],
    *,
    known: Mapping[str, Outcome],
    journal: Journal,
    settings: Mapping[str, object],
    workers: int,
    show: bool,
) -> tuple[list[Outcome], int]:
    """Complete the outcomes of :func:`look_at`: from what is known, or else by probing.

    Args:
        root: the folder of the files.
        seen: sizes and times now.
        known: earlier outcomes; one is used where size and time are still the same, and of a
            rejected file also the time of any change to it.
        journal: each new outcome is added to it at once.
        settings: of :func:`vclr_lightning.data.indexing.worker.find`.
        workers: number of processes.
        show: whether to show a bar.

    Returns:
        The outcomes, in the order of ``seen``, and how many files were probed.
    """
    done = {now.path: now if now.reason else _same(known.get(now.path), now) for now in seen}
    new = {root / now.path: now for now in seen if done[now.path] is None}
    if not new:
        return [outcome for outcome in done.values() if outcome is not None], 0
    processes = min(workers, -(-len(new) // _PER_PROCESS))
    number = rejected = 0
    with journal, progress_bar("probing videos", len(new), show=show) as update:
        answers = probe_all(
            list(new),
            settings=settings,
            workers=processes,
            waiting=lambda: update(number, f"{rejected:,} rejected"),
        )
        for number, (path, answer) in enumerate(answers, 1):
            now = new[path]
            if answer.pop("passing", False):  # so that the next run tries again
                now = Outcome(now.path, -1, -1)
            outcome = replace(now, **answer)
            journal.add(outcome)
            done[now.path] = outcome
            rejected += outcome.reason is not None
            update(number, f"{rejected:,} rejected")
    return [outcome for outcome in done.values() if outcome is not None], len(new)


def _same(known: Outcome | None, now: Outcome) -> Outcome | None:
    if known is None or (known.size, known.mtime_ns) != (now.size, now.mtime_ns):
        return None
    if known.reason and (now.ctime_ns < 0 or known.ctime_ns != now.ctime_ns):
        return None  # it may have been repaired, and given its old time again
    return known
