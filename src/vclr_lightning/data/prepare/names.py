"""What prepared files are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath


def prepared_name(path: str, clashing: Collection[str] = ()) -> str:
    """Return the path of a prepared video, below the folder of the result.

    Args:
        path: of the source, below its root.
        clashing: what :func:`clashing_names` returns; these sources keep their suffix before the
            new one.

    Example:
        >>> prepared_name("run/a.avi"), prepared_name("run/a.avi", {"run/a.avi"})
        ('run/a.mp4', 'run/a.avi.mp4')
    """
    return f"{path}.mp4" if path in clashing else str(PurePosixPath(path).with_suffix(".mp4"))


def clashing_names(paths: Iterable[str]) -> set[str]:
    """Return the sources that would be called alike, also where case is not told apart.

    Example:
        >>> sorted(clashing_names(["a.avi", "A.mp4", "b.avi"]))
        ['A.mp4', 'a.avi']
    """
    named = {path: prepared_name(path).casefold() for path in paths}
    times = Counter(named.values())
    return {path for path, name in named.items() if times[name] > 1}
