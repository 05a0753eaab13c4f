"""How runs differ: in their configuration, and in what they measured over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import short_keys
from vclr_lightning.core.reading import read_text, read_yaml
from vclr_lightning.results import Column, Table
from vclr_lightning.stages.shared.run_folder import Run

_MEASURES = 6  # of each run
_BESIDE = 48  # columns of the screen beside the keys
_LABELS = 4  # settings that name runs over seeds
_SEARCHED = 300  # configurations of other runs
_BY_RUN = ("name", "run_dir", "resume")  # of each run its own, whatever it computes


class Difference(NamedTuple):
    """Keys of the configuration that have these values, one of each run."""

    keys: tuple[str, ...]
    values: tuple[str, ...]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Return where configurations differ; keys that follow from one another are taken together.

    Names and folders of the runs are left out. Runs without a configuration have empty values.

    Example:
        >>> configs = [{"lr": "1", "seed": seed, "data.seed": seed} for seed in ("0", "1")]
        >>> differences([Run("a", config=one) for one in configs])
        [Difference(keys=('seed', 'data.seed'), values=('0', '1'))]
    """
    keys = dict.fromkeys(chain.from_iterable(run.config for run in runs))
    by_values: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in keys:
        values = tuple(_value(run, key) for run in runs)
        if len({v for v, run in zip(values, runs, strict=True) if run.config}) > 1:
            by_values[values].append(key)
    found = [
        Difference(tuple(sorted(keys, key=lambda key: key.count("."))), values)
        for values, keys in by_values.items()
    ]
    return [one for one in found if one.keys[0] not in _BY_RUN]


def _value(run: Run, key: str) -> str:
    """Return a value in which the run's own folder has no part."""
    value, own = run.config.get(key, ""), run.config.get("run_dir")
    return value.replace(own, "RUN") if own else value


def difference_table(runs: Sequence[Run]) -> Table:
    """Return the differing keys with a column for each run."""
    found = differences(runs) if len(runs) > 1 else []
    names = short_keys([one.keys[0] for one in found])
    followers = [f" (and {len(one.keys) - 1} more)" if len(one.keys) > 1 else "" for one in found]
    return Table(
        title="What differs",
        text="Keys that have the same value in each run are taken together.",
        columns=["key", *(Column(run.name) for run in runs)],
        rows=[
            [f"{name}{more}", *one.values]
            for name, more, one in zip(names, followers, found, strict=True)
        ],
        shown="everywhere" if sum(len(run.name) + 3 for run in runs) < _BESIDE else "page",
    )


def seed_table(runs: Sequence[Run]) -> Table:
    """Return mean and standard deviation of what runs measured that differ by their seed alone."""
    others = [one for one in differences(runs) if "seed" not in one.keys]
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for number, run in enumerate(runs):
        if run.status in ("", "finished") and run.config:
            groups[tuple(one.values[number] for one in others)].append(run)
    measures = main_measures(runs)
    names = short_keys([one.keys[0] for one in others])
    rows = []
    for values, of_group in groups.items():
        pairs = [f"{k}={v}" for k, v in zip(names, values, strict=True)]
        rest = len(pairs) - _LABELS
        label = ", ".join(pairs[:_LABELS]) + (f" and {rest} more" if rest > 0 else "") or "all"
        numbers = [[run.values[m] for run in of_group if m in run.values] for m in measures]
        rows.append([label, len(of_group), *map(_spread, numbers)])
    several = any(len(of_group) > 1 for of_group in groups.values())
    return Table(
        title="Over seeds",
        text="Mean ± standard deviation of finished runs that differ by their seed alone.",
        columns=["runs", "number", *(Column(m, wide=k > 1) for k, m in enumerate(measures))],
        rows=rows if several else [],
    )


def _spread(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    middle = f"{mean(numbers):.4g}"
    return f"{middle} ± {stdev(numbers):.2g}" if len(numbers) > 1 else middle


def main_measures(runs: Sequence[Run]) -> list[str]:
    """Return the names of what matters: ``best``, ``val/...``, a stage's own, ``train/loss``.

    Example:
        >>> main_measures([Run("a", values={"train/loss": 1, "val/r1": 1, "val/r1_chance": 1})])
        ['val/r1', 'train/loss']
    """
    names = dict.fromkeys(chain.from_iterable(run.values for run in runs))
    kinds = [
        [name for name in names if name == "best"],
        [name for name in names if name.startswith("val/") and not name.endswith("chance")],
        [name for name in names if "/" not in name and name != "best"],
        [name for name in names if name == "train/loss"],
    ]
    return [*chain.from_iterable(kinds)][:_MEASURES]


def evaluations_of(folder: Path) -> list[Path]:
    """Return folders of finished runs of other stages that took their weights from a run's folder.

    They are looked for where runs are by default, ``outputs/STAGE/NAME``.
    """
    own, found = folder.resolve(), []
    for root in {own.parents[k] for k in (1, 2) if k < len(own.parents)}:
        for file in sorted(root.glob("*/*/config.yaml"))[:_SEARCHED]:
            if file.parent == own or not (file.parent / "result.json").is_file():
                continue
            try:
                if own.name not in read_text(file):  # parsing takes longer
                    continue
                config = read_yaml(file)
            except UserError:
                continue
            weights = [config.get("ckpt"), config.get("init")]
            if any(isinstance(w, str) and Path(w).resolve().parent == own for w in weights):
                found.append(file.parent)
    return found
