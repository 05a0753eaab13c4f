"""Where a worker's time goes: CPU and wall time of the parts of making a sample."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Seconds:
    """CPU time of this process and wall time, in seconds."""

    cpu: float = 0.0
    wall: float = 0.0


@dataclass
class Clock:
    """Adds up what parts take; parts do not nest.

    Example:
        >>> clock = Clock()
        >>> with clock("open"):
        ...     _ = sum(range(1000))
        >>> list(clock.parts), clock.parts["open"].wall > 0
        (['open'], True)
    """

    parts: dict[str, Seconds] = field(default_factory=lambda: defaultdict(Seconds))

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            taken = self.parts[part]
            taken.cpu += time.process_time() - cpu
            taken.wall += time.perf_counter() - wall
