"""What the folder of a run holds: its state, measures, curves, configuration and pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import user_of
from vclr_lightning.core.reading import read_json, read_numbers, read_yaml
from vclr_lightning.evaluation.table import FrozenTable
from vclr_lightning.results import Chart, Scalar
from vclr_lightning.results.curves import charts_of, read_metrics

_KEYS = (
    *("name", "seed", "num_segments", "frames_per_clip", "image_size", "batch_size", "queue_size"),
    *("epochs", "steps", "init"),
)
_FILES = ("metrics.csv", "results.json", "result.json", "train.log")
_TAIL = 1 << 16  # bytes of a log's end
_BEGAN = re.compile(r"INFO vclr_lightning \S+ in ")
_ENDED = re.compile(r"INFO training (ended|stopped) after step \d+(?:: (.*))?$")


@dataclass(frozen=True)
class Run:
    """What the folder of a run holds.

    Attributes:
        name: of the folder.
        charts: its curves.
        settings: from its configuration, for a reader.
        frozen: measures of its frozen features, if it has any.
        scalars: of tasks without labels.
        folder: of the run.
        status: ``finished``, ``running``, ``stopped``, ``failed``, ``unreadable`` or empty.
        reason: why it is not finished.
        step: of the last value that was logged.
        values: what it measured; of a run that has not finished, the last values so far.
        config: its whole configuration, by dotted key.
    """

    name: str
    charts: Sequence[Chart] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    frozen: FrozenTable | None = None
    scalars: Sequence[Scalar] = ()
    folder: Path = Path()
    status: str = ""
    reason: str = ""
    step: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)


def find_runs(folder: Path) -> list[Path]:
    """Return a run's folder, or those below a folder of runs, such as a sweep's or ``outputs``.

    A folder without any is returned as it is, for the error that reading it raises.

    Example:
        >>> find_runs(Path("no/such/run"))
        [PosixPath('no/such/run')]
    """
    if any((folder / name).is_file() for name in _FILES):
        return [folder]
    below: list[Path] = []
    for levels in ("*/", "*/*/", "*/*/*/"):
        found = {path.parent for name in _FILES for path in folder.glob(f"{levels}{name}")}
        below += sorted(one for one in found if not set(one.parents) & set(below))
    return below or [folder]


def read_run(directory: str | Path) -> Run:
    """Read ``metrics.csv``, ``config.yaml``, ``result.json``, ``results.json`` and ``train.log``.

    Raises:
        UserError: there are no metrics, results nor log, or a file is damaged.
    """
    directory = Path(directory)
    file, metrics = directory / "results.json", directory / "metrics.csv"
    results: Any = {}
    if file.is_file():
        try:
            results = read_json(file)
        except UserError as error:
            raise UserError(
                f"{file} is damaged; remove it or run the evaluation again ({error})"
            ) from error
    results = results if isinstance(results, dict) else {}
    measured = read_numbers(directory / "result.json")
    began = results or measured or (directory / "train.log").is_file()
    # without any of them, reading metrics.csv says which folder is none of a run
    curves = read_metrics(metrics) if metrics.exists() or not began else {}
    try:
        scalars = list(held_out_scalars(results.get("held_out") or {}))
        frozen = FrozenTable.from_dict(results["frozen"]) if "frozen" in results else None
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); run the evaluation again") from error
    status, reason = run_status(directory)
    config = _config(directory)
    ends = {name: curve.last for name, curve in curves.items() if curve.last is not None}
    last = {name: value for name, (_, value) in ends.items()}
    return Run(
        name=directory.resolve().name,
        charts=charts_of(curves),
        settings=_settings(config),
        frozen=frozen,
        scalars=scalars,
        folder=directory,
        status=status,
        reason=reason,
        step=int(max(step for step, _ in ends.values())) if ends else None,
        values=last if status in ("running", "stopped") else last | measured,
        config=dict(_flat(config)),
    )


def run_status(directory: Path) -> tuple[str, str]:
    """Return the state of a run, and why it is not finished.

    A run is ``running`` while a process holds its folder; else its log tells how it ended. One that
    began and left no end was killed: ``stopped``.
    """
    if holder := user_of(directory):
        return "running", holder
    log = directory / "train.log"
    if not log.is_file():
        return ("finished" if (directory / "result.json").is_file() else ""), ""
    with log.open("rb") as source:
        source.seek(max(0, log.stat().st_size - _TAIL))
        lines = source.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if match := _ENDED.search(line):
            reason = match[2] or ""
            stopped = match[1] == "stopped"
            asked = reason.startswith(("StopRequested", "KeyboardInterrupt"))
            status = "finished" if not stopped else "stopped" if asked else "failed"
            return status, reason.removeprefix("StopRequested: ")
        if _BEGAN.search(line):
            break
    if (directory / "result.json").is_file() and not (directory / "metrics.csv").is_file():
        return "finished", ""  # it trains nothing
    return "stopped", "it was ended before it could say why"


def held_out_scalars(held_out: Mapping[str, Any]) -> Iterator[Scalar]:
    """Yield what :func:`~vclr_lightning.stages.demo.held_out.held_out` has measured."""
    among = f" among {held_out['videos']}" if "videos" in held_out else ""
    for name, share in held_out.get("instance_r1", {}).items():
        chance = float(held_out["instance_chance"])
        title = f"same video found{among}, {name}"
        yield Scalar(f"instance_r1/{name}", float(share), chance=chance, title=title)
    if held_out.get("order_accuracy") is not None:
        share, chance = float(held_out["order_accuracy"]), float(held_out["order_chance"])
        yield Scalar("order", share, chance=chance, title="shuffled tuples recognised")


def _config(directory: Path) -> dict[str, Any]:
    file = directory / "config.yaml"
    return read_yaml(file) if file.is_file() else {}


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a configuration by dotted key."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, "null" if config is None else str(config)


def run_settings(directory: Path) -> dict[str, str]:
    """Return what ``config.yaml`` of a run says about it, for a reader."""
    return _settings(_config(directory))


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    settings = {key: str(config[key]) for key in _KEYS if config.get(key) is not None}
    if isinstance(backbone := config.get("backbone"), dict):
        target = str(backbone.get("_target_", "")).rpartition(".")[2]
        options = ", ".join(f"{k}={v}" for k, v in backbone.items() if not k.startswith("_"))
        settings["backbone"] = f"{target}({options})"
    objective = config.get("objective")
    losses = objective.get("objectives") if isinstance(objective, dict) else None
    if isinstance(losses, dict | list):
        settings["losses"] = ", ".join(map(str, losses))
    return settings
