"""What the configuration computes: registered once, when the configuration is first read."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_LONGEST = 120  # characters of a folder's name


def scale_lr(base: float, batch_size: int, reference: int = 256) -> float:
    """Learning rate for a global batch, given that for ``reference`` videos.

    Example:
        >>> scale_lr(0.1, 512), scale_lr(0.02, 64, 128)
        (0.2, 0.01)
    """
    return base * batch_size / reference


def short_edge(size: Any) -> Any:
    """Short edge to which a frame is brought before ``size`` is cut out: 256 for 224.

    Example:
        >>> short_edge(224), short_edge(64)
        (256, 73)
    """
    # What is no number is refused later, by the name that the user gave it.
    return round(size * 256 / 224) if isinstance(size, int | float) else size


def frozen_name(ckpt: str | None, root: str | None, manifest: str | None) -> str:
    """Name of a run that measures finished weights: theirs, then that of the videos.

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
    """Return the first value that is not null; null where all are.

    Example:
        >>> first_given(None, "/data/ucf101")
        '/data/ucf101'
    """
    return next((value for value in values if value is not None), None)


def subfolder(folder: str | None, name: str) -> str | None:
    """Folder of its own below another; null where there is none.

    Example:
        >>> subfolder("/features", "ucf101"), subfolder(None, "ucf101")
        ('/features/ucf101', None)
    """
    return None if folder is None else str(Path(folder) / name)


def timm_size(name: str) -> int:
    """Height and width of the pictures that a network of timm was described for.

    Example:
        >>> timm_size("test_vit")
        160
    """
    from vclr_lightning.models.timm import timm_image_size

    return timm_image_size(name)


def unless_given(value: Any, *others: Any) -> Any:
    """Return a value, or null where something else is given.

    Example:
        >>> unless_given("outputs/synthetic", None), unless_given("outputs/synthetic", "/videos")
        ('outputs/synthetic', None)
    """
    return value if all(other is None for other in others) else None


def videos_name(dataset: str | None, root: str | None, manifest: str | None) -> str:
    """Name of some videos for a reader: the data set's, or that of their folder.

    Example:
        >>> videos_name("ucf101", "/data/ucf", None), videos_name(None, "/data/my videos/", None)
        ('ucf101', 'my videos')
    """
    found = first_given(dataset, root, manifest)
    return "synthetic videos" if found is None else Path(found).stem


def folder_name(overrides: Sequence[str], command: Sequence[str], number: int = 0) -> str:
    """A folder's name for one job of a sweep: the values that the sweep varies.

    Args:
        overrides: of the job.
        command: arguments of the command, ``num_segments=1,2,3`` among them.
        number: of the job, for a name that would say nothing, or too much.

    Example:
        >>> folder_name(["data.root=/k400", "num_segments=5"], ["data.root=/k400",
        ...     "num_segments=3,5"])
        'num_segments=5'
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    given = parser.parse_overrides([word for word in command if "=" in word and word[0] != "-"])
    varied = {override.key_or_group for override in given if override.is_sweep_override()}
    kept = [o for o in overrides if o.lstrip("+~").partition("=")[0].partition("@")[0] in varied]
    name = re.sub(r"[^\w=.,+-]+", "_", ",".join(o.lstrip("+~") for o in kept))
    if not name:
        return f"job{number}"
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-job{number}"


def _sweep_folder() -> str:
    """The job's folder below the run's, or nothing outside of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return ""
    job = HydraConfig.get()
    given = [f"{key}={value}" for key, value in (job.sweeper.get("params") or {}).items()]
    return folder_name(job.overrides.task, [*sys.argv[1:], *given], int(job.job.num))


def run_name(name: str) -> str:
    """The run's name, below it in a sweep the job's.

    Example:
        >>> run_name("k400")
        'k400'
    """
    job = _sweep_folder()
    return f"{name}/{job}" if job else name


def given(*names: str) -> str:
    """Return what the command line says of some groups and the keys below them, as there.

    Example:
        >>> given("trainer", "data")  # outside of a run
        ''
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return ""
    said = HydraConfig.get().overrides.task
    heads = ((word, word.lstrip("+~").partition("=")[0]) for word in said)
    return shlex.join(word for word, key in heads if re.split("[.@]", key)[0] in names)


def recipe(name: str, *, _root_: Any) -> str:
    """Option of the group ``recipe`` that holds what an experiment says of the stage that is run.

    Asked while Hydra gathers the defaults, when the choices made so far are the root. A stage that
    is built on another (``/stage@_global_: pretrain``) has the recipe of that one.

    Example:
        >>> recipe("k400", _root_={"stage": "finetune"})
        'finetune/k400'
    """
    return f"{_root_.get('stage@_global_') or _root_['stage']}/{name}"


def register_resolvers() -> None:
    """Make ``${scale_lr:...}``, ``${short_edge:...}`` and the others known to OmegaConf."""
    from omegaconf import OmegaConf

    resolvers: dict[str, Callable[..., Any]] = {
        "scale_lr": scale_lr,
        "short_edge": short_edge,
        "frozen_name": frozen_name,
        "first_given": first_given,
        "given": given,
        "timm_size": timm_size,
        "unless_given": unless_given,
        "subfolder": subfolder,
        "videos_name": videos_name,
        "recipe": recipe,
        "run_name": run_name,
        "run_subdir": _sweep_folder,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
