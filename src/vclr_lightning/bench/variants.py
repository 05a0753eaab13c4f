"""What might help: other ways to augment and other files, as configurations to measure."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from vclr_lightning.bench.files import OtherFiles, Reencoded, Source, same_spacing
from vclr_lightning.bench.samples import one_thread
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import Update
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.prepare import Recipe

_ROUNDS = 2, 64  # the least, and the most


@dataclass(frozen=True)
class Variant:
    """A way to load that differs from the run's own.

    Attributes:
        name: for a reader, as one would type it.
        values: of the configuration, by key.
        recipe: of the files, where they are re-encoded.
        options: of ``vclr prepare``, for that recipe.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    options: str = ""

    def lines(self, manifest: str) -> list[str]:
        """Return what to type: a command where there is one, and overrides.

        Example:
            >>> Variant("x", {"data.augment": "opencv"}).lines("k400.arrow")
            ['data.augment=opencv']
        """
        overrides = [f"{key}={value}" for key, value in self.values.items()]
        if self.recipe is None:
            return overrides
        command = f"vclr prepare {shlex.quote(manifest)} --out FOLDER{self.options}"
        return [command, " ".join(["data.manifest=FOLDER/manifest.arrow", *overrides])]


def other_files(sources: Sequence[Source]) -> list[Variant]:
    """Return the ways to re-encode that may be worth it, the least work and space first."""
    found = [
        Variant("vclr prepare", recipe=Recipe()),
        Variant("vclr prepare --intra", recipe=Recipe(keyframe_every=1), options=" --intra"),
    ]
    if any(source.b_frames for source in sources):
        kept = same_spacing(sources)
        options = f" --keyframe-every {kept.keyframe_every} --short-edge {kept.short_edge}"
        found.append(Variant("no B-frames, keyframes kept", recipe=kept, options=options))
    return found


def other_augmentations(current: str | None) -> list[Variant]:
    """Return the ways to augment but for the current one.

    Example:
        >>> [variant.name for variant in other_augmentations("opencv")]
        ['data.augment=device']
    """
    names = [name for name in ("opencv", "device") if name != current]
    return [Variant(f"data.augment={name}", {"data.augment": name}) for name in names]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A variant that can be measured.

    Attributes:
        variant: which.
        dataset: gives its samples.
        bytes_ratio: bytes of its files for a byte of the run's own; 1 where they are the same.
    """

    variant: Variant
    dataset: VideoDataset
    bytes_ratio: float = 1.0


def with_files(case: Case, files: Reencoded, variant: Variant) -> Case:
    """Return a case that reads other files and augments as ``case`` does."""
    both = Variant(
        variant.name if not case.variant.values else f"{variant.name}, {case.variant.name}",
        {**variant.values, **case.variant.values},
        variant.recipe,
        variant.options,
    )
    table = OtherFiles(case.dataset.manifest, files)
    return Case(
        variant=both, dataset=case.dataset.replaced(manifest=table), bytes_ratio=files.ratio
    )


def compare_samples(
    cases: Mapping[str, Callable[[tuple[int, int]], Any]],
    rows: Sequence[int],
    *,
    seconds: float,
    update: Update,
) -> dict[str, float]:
    """Return the CPU time that each case takes for the same samples, in turns, in one thread.

    A round makes one sample of each row by each case, and begins with another case than the last.

    Args:
        cases: make a sample of a key ``(epoch, row)``.
        rows: of the samples.
        seconds: to measure for; two rounds at least.
        update: is told the rounds.

    Raises:
        UserError: a sample cannot be made.
    """
    least, most = _ROUNDS
    spent = dict.fromkeys(cases, 0.0)
    names = list(cases)
    begin = time.monotonic()
    with one_thread():
        for name in names:  # what is only done once
            cases[name]((0, rows[0]))
        for number in count(1):
            shift = number % len(names)
            for row in rows:
                for name in names[shift:] + names[:shift]:
                    start = time.process_time()
                    cases[name]((number, row))
                    spent[name] += time.process_time() - start
            update(number, "rounds")
            if number >= most or (number >= least and time.monotonic() - begin > seconds):
                return spent
    raise AssertionError  # unreachable: the loop returns


def reencoded(
    sources: Sequence[Source], variant: Variant, folder: Path, number: int
) -> Reencoded | str:
    """Return the files of a variant, or why there are none."""
    assert variant.recipe is not None
    place = folder / str(number)
    place.mkdir()
    try:
        return Reencoded.make(sources, variant.recipe, place)
    except UserError as error:
        return str(error)
