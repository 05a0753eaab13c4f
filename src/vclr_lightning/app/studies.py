"""Studies: what is compared, at which scale, and the commands that this takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_record, read_yaml

SCALES = ("small", "paper")
CELL = "cell.json"
"""Of the folder of an arm and a seed: its commands, those that are done, and why one failed."""
SUSTAINED = 100.0
"""TFLOP/s of a device over a whole training; assumed, not measured."""
_NAME = re.compile(r"[A-Za-z][\w.+-]*")
_REFERENCE = re.compile(r"\$\{([\w.+-]+)\}")
_EVERYWHERE = ("trainer", "data")  # heads of words that hold for every command of a cell
# What changes how a command is run, not what it computes.
_ASIDE = ("trainer.threads", "data.num_workers", "data.cache_dir", "logger", "logger.")


@dataclass(frozen=True, kw_only=True)
class StudyCommand:
    """One command of a cell: arguments of ``python -m vclr_lightning.train``, and its folder."""

    folder: str
    words: Sequence[str]

    @property
    def what(self) -> list[str]:
        """The words without those that only say how it is run."""
        return [w for w in self.words if w.lstrip("+").partition("=")[0] not in _ASIDE]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison, all else equal, at one scale: ``conf/study/NAME.yaml``.

    A value of the scale wins over one of the study.

    Attributes:
        name: of the study.
        scale: ``"small"`` or ``"paper"``.
        title: for a reader.
        paper: table or figure that it repeats.
        question: that it answers.
        arms: words of each, which are put behind those of the scale.
        baseline: arm that the others are compared with.
        against: other baselines of single arms.
        seeds: of each arm.
        measures: titles of what is compared, all of them shares, the main one first.
        keys: where each is found in the numbers of a cell: those of ``result.json``, with the name
            of the command before those of ``then``.
        words: of the training command.
        then: words of the commands after it, by name.
        published: of each arm or other method, in %, by measure.
        pictures: files of a cell that belong into the record, as patterns, by title.
        paths: files and folders that a user gives, ``paths.NAME=...``; words name them as
            ``${paths.NAME}``, beside ``${arm}``, ``${seed}`` and ``${run}``, the cell's folder.
        note: what a reader has to know.
        gflop: operations of a training step for one video, in 10^9, by arm; of a multiplication
            and an addition, two.
        videos: seen in an epoch.
        epochs: of the training.
    """

    name: str
    scale: str
    title: str
    paper: str
    question: str
    arms: Mapping[str, Sequence[str]]
    baseline: str
    seeds: Sequence[int]
    measures: Mapping[str, str]
    keys: Mapping[str, str]
    words: Sequence[str]
    against: Mapping[str, str] = field(default_factory=dict)
    then: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str | None] = field(default_factory=dict)
    note: str = ""
    gflop: Mapping[str, float] = field(default_factory=dict)
    videos: int = 0
    epochs: int = 0

    @property
    def folder(self) -> Path:
        """Where everything is, below the working directory."""
        return Path("outputs", "study", self.name, self.scale)

    def cells(self) -> Iterator[tuple[str, int]]:
        """Yield arms and seeds; those of the first seed come first."""
        return ((arm, seed) for seed in self.seeds for arm in self.arms)

    def cell_folder(self, arm: str, seed: int) -> Path:
        """Where the runs of an arm and a seed are."""
        return self.folder / arm / f"seed{seed}"

    def commands(self, arm: str, seed: int, given: Sequence[str] = ()) -> list[StudyCommand]:
        """Return the commands of an arm and a seed, in their order.

        Args:
            arm: what is studied.
            seed: of the runs.
            given: the user's words, behind those of the study: in the training command; in all,
                if they are of the trainer or the data.

        A missing path stays ``${paths.NAME}``, see :meth:`missing`.
        """
        run = self.cell_folder(arm, seed)
        known: dict[str, str | None] = {"arm": arm, "seed": str(seed), "run": str(run)}
        known |= {f"paths.{key}": value for key, value in self.paths.items()}
        heads = {word: re.split(r"[.=]", word.lstrip("+"))[0] for word in given}
        named = f"name={self.name}-{arm}-seed{seed}"
        words = {"": [*self.words, *self.arms[arm], *given, named]}
        for name, said in self.then.items():
            suite = any(word.startswith("+suite=") for word in said)  # has data sets of its own
            shared = _EVERYWHERE[: 1 if suite else 2]
            words[name] = [*said, *(word for word in given if heads[word] in shared)]
        return [
            StudyCommand(
                folder=str(run / name) if name else str(run),
                words=[*(_filled(word, known) for word in said), f"seed={seed}"],
            )
            for name, said in words.items()
        ]

    def missing(self) -> set[str]:
        """Return the paths that its commands take and the user has still to give."""
        missing = {f"paths.{key}" for key, value in self.paths.items() if value is None}
        commands = [one for arm in self.arms for one in self.commands(arm, self.seeds[0])]
        left = _REFERENCE.findall(" ".join(word for one in commands for word in one.words))
        return missing & set(left)

    def gpu_hours(self, arm: str) -> float | None:
        """Estimate the hours of one training on a device that sustains 100 TFLOP/s.

        Operations of a step for one video x videos x epochs / (100 TFLOP/s); reading videos and the
        evaluations are not in it. ``None`` where the operations are not stated.

        Example:
            >>> study("losses", "paper").gpu_hours("unknown") is None
            True
        """
        if arm not in self.gflop:
            return None
        return self.gflop[arm] * self.videos * self.epochs / (SUSTAINED * 1e3) / 3600


def _filled(word: str, known: Mapping[str, str | None]) -> str:
    """Put paths, arm, seed and run into a word; other interpolations are left to Hydra."""

    def value(match: re.Match[str]) -> str:
        return known.get(match[1]) or match[0]

    # one of them may hold another, as ${paths.${arm}} does
    while (filled := _REFERENCE.sub(value, word)) != word:
        word = filled
    return word


def study_files(folder: Path | None = None) -> dict[str, Path]:
    """Return the definitions by name: the package's, and those in ``study/`` of a folder."""
    with resources.as_file(resources.files("vclr_lightning.conf")) as conf:
        places = [conf / "study", *([folder / "study"] if folder else [])]
        return {file.stem: file for place in places for file in sorted(place.glob("*.yaml"))}


def study(
    name: str, scale: str = "small", given: Mapping[str, str] | None = None, **options: Any
) -> Study:
    """Read a study.

    Args:
        name: of the study.
        scale: ``"small"`` or ``"paper"``.
        given: of the user: ``arms`` and ``seeds``, separated by commas, and ``paths.NAME``.
        options: ``folder``: of the user's configurations, with studies in ``study/``.

    Raises:
        UserError: there is no such study, or something in it or in ``given`` is wrong.
    """
    files, given = study_files(**options), dict(given or {})
    if name not in files:
        raise UserError(f"there is no study {name!r}; there are: {', '.join(files)}")
    file = files[name]
    content = read_yaml(file)
    scales = content.pop("scales", {})
    if scale not in scales:
        raise UserError(f"{name} has no scale {scale!r}; it has: {', '.join(scales)}")
    content |= {"name": name, "scale": scale, **scales[scale]}
    known = {one.name for one in fields(Study)}
    if wrong := sorted(content.keys() - known):
        raise UserError(f"{file}: {wrong[0]} is no key of a study; there are: {sorted(known)}")
    needed = {"title", "paper", "question", "arms", "baseline", "seeds", "measures", "keys"}
    if missing := sorted((needed | {"words"}) - content.keys()):
        raise UserError(f"{file}: {missing[0]} is missing")
    _choose(content, given)
    for key, value in given.items():
        path = key.removeprefix("paths.")
        if path not in content.get("paths", {}):
            raise UserError(f"{name} takes no {key}; its paths: {sorted(content.get('paths', {}))}")
        content["paths"][path] = value
    found = Study(**content)
    if bad := [arm for arm in found.arms if not _NAME.fullmatch(arm)]:
        raise UserError(f"{file}: the arm {bad[0]!r} must be a letter, and letters, digits or _.+-")
    if found.measures.keys() != found.keys.keys():
        raise UserError(f"{file}: measures and keys of {scale} must have the same names")
    return found


def _choose(content: dict[str, Any], given: dict[str, str]) -> None:
    """Leave the arms and seeds that the user has given."""
    if "seeds" in given:
        seeds = given.pop("seeds").strip("[]").split(",")
        if not all(map(str.isdecimal, seeds)):
            raise UserError(f"seeds={','.join(seeds)} must be whole numbers with commas between")
        content["seeds"] = list(dict.fromkeys(map(int, seeds)))
    if "arms" in given:
        arms = given.pop("arms").strip("[]").split(",")
        if wrong := [arm for arm in arms if arm not in content["arms"]]:
            raise UserError(f"there is no arm {wrong[0]!r}; arms: {', '.join(content['arms'])}")
        content["arms"] = {arm: content["arms"][arm] for arm in arms}
    if content["baseline"] not in content["arms"]:
        content["baseline"] = next(iter(content["arms"]))


def state(folder: Path) -> str:
    """Return ``done``, ``failed``, ``begun`` or nothing, of a cell."""
    record = read_record(folder / CELL)
    if record is None:
        return ""
    if record["failed"]:
        return "failed"
    return "done" if len(record["done"]) == len(record["commands"]) else "begun"
