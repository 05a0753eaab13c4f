"""What the configuration computes: OmegaConf resolvers."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SWEEP_COMMAND = "VCLR_SWEEP_COMMAND"
"""Variable with the sweep's arguments, for jobs that a launcher runs by commands of its own."""
_GROUP = "VCLR_GROUP"  # of a run that another one starts: {"group": ..., "tags": ...}
_LONGEST = 120  # characters of a folder's name


def scale_lr(base: float, batch_size: int, reference: int = 256) -> float:
    """Learning rate for a global batch, given that for ``reference`` videos.

    Example:
        >>> scale_lr(0.1, 512), scale_lr(0.02, 64, 128)
        (0.2, 0.01)
    """
    return base * batch_size / reference


def short_edge(size: Any) -> Any:
    """Short edge to which a frame is resized before ``size`` is cropped: 256 for 224.

    Example:
        >>> short_edge(224), short_edge(64)
        (256, 73)
    """
    # What is no number is refused later, by the key that the user gave.
    return round(size * 256 / 224) if isinstance(size, int | float) else size


def frozen_name(ckpt: str | None, root: str | None, manifest: str | None) -> str:
    """Name of a run that evaluates finished weights: theirs, then that of the videos.

    Example:
        >>> frozen_name("outputs/pretrain/k400/last.ckpt", "/data/ucf101", None)
        'k400-ucf101'
        >>> frozen_name("/moco_v2_200ep_pretrain.pth.tar", None, "/data/hmdb51.arrow")
        'moco_v2_200ep_pretrain-hmdb51'
    """
    path = Path(ckpt or "none")
    stem, _, form = path.name.partition(".")
    if str(path).lower() == "none":
        weights = "untrained"
    elif path.parent.name and form in ("ckpt", "backbone.safetensors"):
        weights = path.parent.name if stem == "last" else f"{path.parent.name}-{stem}"
    else:
        weights = stem
    videos = Path(root).name if root else Path(manifest).stem if manifest else ""
    return re.sub(r"[^\w.+-]+", "_", f"{weights}-{videos}" if videos else weights)


def first_given(*values: Any) -> Any:
    """Return the first value that is not null; null where all are."""
    return next((value for value in values if value is not None), None)


def unless_given(value: Any, *others: Any) -> Any:
    """Return a value, or null where one of the others is given."""
    return value if all(other is None for other in others) else None


def subfolder(folder: str | None, name: str) -> str | None:
    """Folder below another; null where there is none."""
    return None if folder is None else str(Path(folder) / name)


def timm_size(name: str) -> int:
    """Image size that a timm network was described for; 160 for ``test_vit``."""
    from vclr_lightning.models.timm import timm_image_size

    return timm_image_size(name)


def videos_name(dataset: str | None, root: str | None, manifest: str | None) -> str:
    """Name of some videos for a reader: the data set's, or that of their folder.

    Example:
        >>> videos_name("ucf101", "/data/ucf", None), videos_name(None, "/data/my videos/", None)
        ('ucf101', 'my videos')
    """
    found = first_given(dataset, root, manifest)
    return "synthetic videos" if found is None else Path(found).stem


def folder_name(overrides: Sequence[str], command: Sequence[str], number: int = 0) -> str:
    """Folder name of one job of a sweep: the values that the sweep varies.

    Args:
        overrides: of the job.
        command: arguments of the command, ``num_segments=1,2,3`` among them.
        number: of the job, for a name that would be empty or too long.

    Example:
        >>> folder_name(["data.root=/k400", "num_segments=5"], ["data.root=/k400",
        ...     "num_segments=3,5"])
        'num_segments=5'
    """
    name = re.sub(r"[^\w=.,+-]+", "_", ",".join(varied(overrides, command)))
    if not name:
        return f"job{number}"
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-job{number}"


def varied(overrides: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return the overrides of a sweep's job in which it differs from the others.

    Example:
        >>> varied(["data.root=/k400", "+num_segments=5"], ["data.root=/k400", "+num_segments=3,5"])
        ['num_segments=5']
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    words = parser.parse_overrides([word for word in command if "=" in word and word[0] != "-"])
    names = {override.key_or_group for override in words if override.is_sweep_override()}
    kept = [o for o in overrides if o.lstrip("+~").partition("=")[0].partition("@")[0] in names]
    return [override.lstrip("+~") for override in kept]


def _job() -> tuple[list[str], list[str], int] | None:
    """Overrides of this job of a sweep, the command's, and its number; ``None`` outside of one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return None
    job = HydraConfig.get()
    params = [f"{key}={value}" for key, value in (job.sweeper.get("params") or {}).items()]
    words = sys.argv[1:]
    if not {"-m", "--multirun"} & set(words):
        words = json.loads(os.environ.get(SWEEP_COMMAND, "[]"))
    return list(job.overrides.task), [*words, *params], int(job.job.num)


def run_subdir() -> str:
    """Folder of a sweep's job below the sweep's; empty outside of a sweep.

    Under ``wandb agent``, which starts a command for each job, it is W&B's name of the run.
    """
    if (job := _job()) is not None:
        return folder_name(*job)
    return os.environ.get("WANDB_RUN_ID", "") if "WANDB_SWEEP_ID" in os.environ else ""


def run_name(name: str) -> str:
    """Name of the run; in a sweep, the job's folder below it."""
    job = run_subdir()
    return f"{name}/{job}" if job else name


def sweep_group(name: str) -> str | None:
    """Group of a sweep's job, or of a command that another run has started; else null."""
    given: str | None = json.loads(os.environ.get(_GROUP, "{}")).get("group")
    return given if _job() is None else name


def sweep_tags() -> str:
    """What distinguishes a sweep's job from the others, ``KEY=VALUE``; empty outside of a sweep.

    As a line, quoted like a shell's: OmegaConf takes no list from a resolver.
    """
    if (job := _job()) is not None:
        return shlex.join(varied(*job[:2]))
    return str(json.loads(os.environ.get(_GROUP, "{}")).get("tags", ""))


@contextmanager
def group_shared(name: str) -> Iterator[None]:
    """Let commands that the block starts know to which run or sweep they belong."""
    before = os.environ.get(_GROUP)
    group = {"group": sweep_group(name) or name, "tags": sweep_tags()}
    os.environ[_GROUP] = json.dumps(group)
    try:
        yield
    finally:
        os.environ.pop(_GROUP)
        if before is not None:
            os.environ[_GROUP] = before


def given(*names: str) -> str:
    """Return the command line's overrides of some groups and of the keys below them."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return ""
    heads = ((o, o.lstrip("+~").partition("=")[0]) for o in HydraConfig.get().overrides.task)
    return shlex.join(word for word, key in heads if re.split("[.@]", key)[0] in names)


def recipe(name: str, *, _root_: Any) -> str:
    """Option of the group ``recipe`` that holds an experiment's values for the chosen stage.

    Resolved while Hydra gathers the defaults, when the choices made so far are the root. A stage
    built on another (``/stage@_global_: pretrain``) has the recipe of that one.

    Example:
        >>> recipe("k400", _root_={"stage": "finetune"})
        'finetune/k400'
    """
    return f"{_root_.get('stage@_global_') or _root_['stage']}/{name}"


def register_resolvers() -> None:
    """Register ``${scale_lr:...}``, ``${short_edge:...}`` and the others with OmegaConf."""
    from omegaconf import OmegaConf

    for resolver in (
        *(scale_lr, short_edge, frozen_name, first_given, unless_given, subfolder, timm_size),
        *(videos_name, run_subdir, run_name, given, recipe),
        *(sweep_group, sweep_tags),
    ):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
