"""From measured numbers to what to do: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_WORTH = 1.05  # times as fast; less is not worth a change
_SLACK = 1.02  # workers that fall short by so little keep the device busy
_SHARED = " Workers and training share the cores here, so that both are slower than apart."
_WAITS = 0.1  # share of the time; less is not worth a word


@dataclass(frozen=True, kw_only=True)
class Option:
    """A way to load, in the order of the work that it takes.

    Attributes:
        name: for a reader.
        worker: seconds in which one worker makes a sample.
        step: seconds in which the device trains on it.
        lines: what to type for it.
    """

    name: str
    worker: float
    step: float
    lines: tuple[str, ...] = ()

    def rate(self, workers: int) -> float:
        """Videos a second that training reaches.

        Example:
            >>> Option(name="", worker=0.1, step=0.02).rate(2)
            20.0
        """
        return min(max(1, workers) / self.worker, 1 / self.step)

    @property
    def workers(self) -> int:
        """Workers that keep the device busy.

        Example:
            >>> Option(name="", worker=0.1, step=0.03).workers
            4
        """
        return max(1, math.ceil(self.worker / self.step / _SLACK))


@dataclass(frozen=True)
class Advice:
    """What to do.

    Attributes:
        text: a paragraph.
        lines: commands and overrides to type.
    """

    text: str
    lines: tuple[str, ...] = ()


def advise(
    now: Option, others: Sequence[Option], *, available: int, on_cpu: bool, wait: float = 0.0
) -> Advice:
    """Return what would make training faster with the workers that there can be.

    Of what keeps the device busy the least work is chosen; where nothing does, the fastest. Where
    enough workers are still waited for, something else keeps them from their cores, and what
    spares most time of both is chosen.

    Args:
        now: as it is.
        others: what might help, the least work first.
        available: workers that a process can have.
        on_cpu: whether the CPU itself trains, so that workers and training share its cores.
        wait: share of the time that training waited with workers enough, as measured.

    Example:
        >>> now = Option(name="as it is", worker=0.08, step=0.01)
        >>> faster = Option(name="vclr prepare", worker=0.02, step=0.01, lines=("vclr prepare",))
        >>> advise(now, [faster], available=3, on_cpu=False).lines
        ('vclr prepare', 'data.num_workers=2')
    """
    could = f"{_workers(available)} deliver{'' if available > 1 else 's'}"
    nothing = (
        "Nothing that was measured helps; more cores do."
        if others
        else "What would help was not measured."
    )
    shared = _SHARED if on_cpu else ""
    if now.workers <= available and wait > _WAITS:
        return _sharing(now, others, wait=wait, on_cpu=on_cpu, nothing=nothing)
    if now.workers <= available:
        return Advice(
            f"Nothing has to change: training takes {1 / now.step:.3g} videos/s, and "
            f"{_workers(now.workers)} of the {available} that there can be deliver them.{shared}",
            (f"data.num_workers={now.workers}",),
        )
    rate = now.rate(available)
    begin = (
        f"Training waits for its data: it could take {1 / now.step:.3g} videos/s, and {could} "
        f"{rate:.3g}; it would take {now.workers}."
    )
    worth = [option for option in others if option.rate(available) >= _WORTH * rate]
    if not worth:
        return Advice(f"{begin} {nothing}{shared}")
    enough = [option for option in worth if option.workers <= available]
    best = enough[0] if enough else max(worth, key=lambda option: option.rate(available))
    gain = best.rate(available) / rate
    suffice = f"{_workers(best.workers)} suffice{'' if best.workers > 1 else 's'}"
    end = suffice if enough else f"though it would take {best.workers}"
    return Advice(
        f"{begin} With {best.name} it becomes {gain:.1f} times as fast, "
        f"{best.rate(available):.3g} videos/s; {end}.{shared}",
        (*best.lines, f"data.num_workers={min(best.workers, available)}"),
    )


def _sharing(
    now: Option, others: Sequence[Option], *, wait: float, on_cpu: bool, nothing: str
) -> Advice:
    """What to do where workers suffice on paper, and are waited for."""
    why = "workers and training share the cores" if on_cpu else "something else uses the cores"
    text = (
        f"{_workers(now.workers)} would suffice with cores of their own, yet training waited for "
        f"its data {wait:.0%} of the time: {why}."
    )
    best = min(others, key=lambda option: option.worker + option.step, default=now)
    if best.worker + best.step > (now.worker + now.step) / _WORTH:
        return Advice(f"{text} {nothing}")
    cheaper = now.worker / best.worker
    return Advice(f"{text} With {best.name} a sample costs {cheaper:.1f} times less.", best.lines)


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"
