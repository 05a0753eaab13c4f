"""From measured costs to what to do: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_WORTH = 1.05  # times as fast; less is not worth a change
_SLACK = 1.02  # workers that fall short by so little keep the device busy
_SHARED = " Workers and training share the cores here, so both are slower than apart."
_WAITS = 0.1  # share of the time; less is not worth mentioning


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A way to load, and what it costs.

    Attributes:
        name: as one would type it.
        worker: seconds in which one worker makes a sample.
        step: seconds in which the device trains on it.
        lines: command and overrides to type.
        cheaper: how many times less CPU time a sample takes than in the run as it is.
        bytes_ratio: size of its files relative to those of the run as it is.
    """

    name: str
    worker: float
    step: float
    lines: tuple[str, ...] = ()
    cheaper: float = 1.0
    bytes_ratio: float = 1.0

    def rate(self, workers: int) -> float:
        """Videos per second that training reaches.

        Example:
            >>> Setup(name="", worker=0.1, step=0.02).rate(2)
            20.0
        """
        return min(max(1, workers) / self.worker, 1 / self.step)

    @property
    def workers(self) -> int:
        """Workers that keep the device busy.

        Example:
            >>> Setup(name="", worker=0.1, step=0.03).workers
            4
        """
        return max(1, math.ceil(self.worker / self.step / _SLACK))


class Advice(NamedTuple):
    """What to do: a paragraph, and commands and overrides to type."""

    text: str
    lines: tuple[str, ...] = ()


def advise(
    now: Setup, others: Sequence[Setup], *, available: int, on_cpu: bool, wait: float = 0.0
) -> Advice:
    """Return what would make training faster with the available workers.

    Of the setups that keep the device busy the first is chosen; where none does, the fastest.
    Where training waits although the workers suffice, something else uses their cores, and the
    setup that takes the least time of both is chosen.

    Args:
        now: the run as it is.
        others: what might help, the least effort first.
        available: workers that a process can have.
        on_cpu: whether the CPU itself trains, so that workers and training share its cores.
        wait: share of the time that training waited with enough workers, as measured.

    Example:
        >>> now = Setup(name="as it is", worker=0.08, step=0.01)
        >>> faster = Setup(name="vclr prepare", worker=0.02, step=0.01, lines=("vclr prepare",))
        >>> advise(now, [faster], available=3, on_cpu=False).lines
        ('vclr prepare', 'data.num_workers=2')
    """
    nothing = "Nothing that was measured helps; more cores do."
    if not others:
        nothing = "What would help was not measured."
    if now.workers <= available and wait > _WAITS:
        why = "workers and training share the cores" if on_cpu else "something else uses the cores"
        text = (
            f"{some_workers(now.workers)} would suffice with cores of their own, yet training "
            f"waited for its data {wait:.0%} of the time: {why}."
        )
        best = min(others, key=lambda setup: setup.worker + setup.step, default=now)
        if best.worker + best.step > (now.worker + now.step) / _WORTH:
            return Advice(f"{text} {nothing}")
        cheaper = now.worker / best.worker
        return Advice(
            f"{text} With {best.name} a sample costs {cheaper:.1f} times less.", best.lines
        )
    shared = _SHARED if on_cpu else ""
    if now.workers <= available:
        return Advice(
            f"Nothing has to change: training takes {1 / now.step:.3g} videos/s, "
            f"and {some_workers(now.workers)} of the {available} that there can be deliver "
            f"them.{shared}",
            (f"data.num_workers={now.workers}",),
        )
    rate = now.rate(available)
    text = (
        f"Training waits for its data: it could take {1 / now.step:.3g} videos/s, and "
        f"{some_workers(available)} deliver{'' if available > 1 else 's'} {rate:.3g}; "
        f"it would take {now.workers}."
    )
    worth = [setup for setup in others if setup.rate(available) >= _WORTH * rate]
    if not worth:
        return Advice(f"{text} {nothing}{shared}")
    enough = [setup for setup in worth if setup.workers <= available]
    best = enough[0] if enough else max(worth, key=lambda setup: setup.rate(available))
    suffice = f"{some_workers(best.workers)} suffice{'' if best.workers > 1 else 's'}"
    return Advice(
        f"{text} With {best.name} it becomes {best.rate(available) / rate:.1f} times as fast, "
        f"{best.rate(available):.3g} videos/s; "
        f"{suffice if enough else f'though it would take {best.workers}'}.{shared}",
        (*best.lines, f"data.num_workers={min(best.workers, available)}"),
    )


def some_workers(number: int) -> str:
    """Return a number of workers in words.

    Example:
        >>> some_workers(1), some_workers(0)
        ('1 worker', '0 workers')
    """
    return f"{number} worker{'' if number == 1 else 's'}"
