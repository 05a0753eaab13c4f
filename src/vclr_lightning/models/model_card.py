"""A page about weights: which network, trained on what and how, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vclr_lightning import __version__
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.reading import parse_json, plain_values, read_numbers
from vclr_lightning.functional.pixels import pixel_statistics
from vclr_lightning.models.checkpoints import Checkpoint
from vclr_lightning.models.network_spec import describe_spec, spec_of
from vclr_lightning.models.run_record import config_value, run_config

Facts = dict[str, dict[str, str]]
"""Of each section of a card: values by name."""

_DATA = {
    "dataset": "data.dataset",
    "image size": "image_size",
    "frames per clip": "frames_per_clip",
    "distance between frames": "frame_stride",
    "frames per second": "frame_rate",
    "segments": "num_segments",
}
_RECIPE = {
    "stage": "stage.name",
    "epochs": "epochs",
    "batch size": "batch_size",
    "learning rate": "optim.optimizer.lr",
    "weight decay": "optim.optimizer.weight_decay",
    "momentum of the encoder": "momentum",
    "queue": "queue_size",
    "precision": "trainer.precision",
    "seed": "seed",
}
_CLASSES = {"optimizer": "optim.optimizer", "schedule": "optim.scheduler"}
_FILES = {"videos": ("data.root", "data.manifest"), "initial weights": ("init",)}


def card_facts(checkpoint: Checkpoint, *, results: Sequence[Path] = ()) -> Facts:
    """Return what a checkpoint, its run's folder and further results say about its weights.

    Paths are cut to their last part: a card is to be published.

    Args:
        checkpoint: of any form; an export says what it was made from.
        results: ``result.json`` of evaluations.

    Raises:
        UserError: a file is damaged, or one of ``results`` holds no numbers.
    """
    text = checkpoint.metadata.get("card", "{}")
    stated = parse_json(text, f"the card in {checkpoint.path}")
    known = plain_values(stated, checkpoint.path) if isinstance(stated, dict) else {}
    facts: Facts = {
        str(section): {str(name): str(value) for name, value in values.items()}
        for section, values in known.items()
        if isinstance(values, Mapping)
    }
    config = run_config(checkpoint.path) if checkpoint.form == "vclr_lightning" else {}
    data, recipe = _values(config, _DATA), _values(config, _RECIPE)
    for name, keys in _FILES.items():
        found = next((value for key in keys if (value := config_value(config, key))), None)
        if found:
            (data if name == "videos" else recipe)[name] = Path(str(found)).name
    for name, key in _CLASSES.items():
        if target := config_value(config, f"{key}._target_"):
            recipe[name] = str(target).rpartition(".")[2]
    names = (("method", "method"), ("step", "steps"), ("global_step", "steps"), ("epoch", "epoch"))
    recipe |= {name: str(checkpoint.metadata[k]) for k, name in names if k in checkpoint.metadata}
    if config and "method" not in recipe and checkpoint.heads:
        recipe["method"] = "+".join(checkpoint.heads)
    measured = _numbers(checkpoint.path.with_name("result.json")) if config else {}
    for file in results:
        numbers = _numbers(file)
        if not numbers:
            raise UserError(f"{file} holds no numbers; give result.json of a run")
        run = "/".join(file.absolute().parts[-3:-1])
        measured |= {f"{run} {name}": value for name, value in numbers.items()}
    sections = {"Training data": data, "Recipe": recipe, "Measured": measured}
    for section, values in sections.items():
        if values:
            facts[section] = facts.get(section, {}) | values
    return facts


def _values(config: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, str]:
    found = {name: config_value(config, key) for name, key in keys.items()}
    return {name: str(value) for name, value in found.items() if value is not None}


def _numbers(file: Path) -> dict[str, str]:
    """Return the measures of a result, without those of the loss, as text."""
    shown = {n: v for n, v in read_numbers(file).items() if not n.startswith(("train/", "data/"))}
    return {name: f"{value:.4g}" for name, value in shown.items()}


def model_card(
    file: str,
    *,
    network: nn.Module | None,
    facts: Mapping[str, Mapping[str, str]],
    names: str = "own",
    checked: str = "",
    load: str = "",
) -> str:
    """Return the card of a weights file as Markdown, with the head that model hubs read.

    Args:
        file: its name.
        network: that it is of, if known.
        facts: of :func:`card_facts`.
        names: whose names its tensors have.
        checked: how it was compared with its source.
        load: a line of Python that loads it; by default that of ``load_backbone``.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> card = model_card("b.safetensors", network=TinyBackbone(width=8), facts={})
        >>> print(card[card.index("TinyBackbone") : card.index(";")])
        TinyBackbone(width=8, stages=3, norm='batch') takes pictures `(N, 3, H, W)`
    """
    about = []
    if network is not None:
        mean, std = pixel_statistics(network)
        shape = "clips `(N, 3, T, H, W)`" if getattr(network, "clip_dims", 2) == 3 else ""
        parameters = sum(p.numel() for p in network.parameters())
        about = [
            f"{describe_spec(spec_of(network))} takes {shape or 'pictures `(N, 3, H, W)`'}; pixels "
            f"in 0 to 1, less the mean {_rounded(mean)}, divided by {_rounded(std)}. It returns "
            f"features `(N, {getattr(network, 'num_features', '?')})` and has {parameters:,} "
            "parameters."
        ]
    if not load and file.endswith(".onnx"):
        load = f'features = InferenceSession("{file}").run(None, {{"pixels": pixels}})[0]'
        source = "from onnxruntime import InferenceSession"
    else:
        source = "from vclr_lightning.models import load_backbone"
        load = load or f'backbone = load_backbone("{file}")'
    sections = [
        "\n".join([f"## {title}", "", "| | |", "| --- | --- |", *_rows(values)])
        for title, values in facts.items()
    ]
    written = f"Written by vclr_lightning {__version__}, names: {names}."
    return "\n\n".join(
        [
            "---\nlibrary_name: vclr_lightning\ntags:\n- video\n- feature-extraction\n---",
            f"# {Path(file).stem}",
            *about,
            f"```python\n{source}\n\n{load}\n```",
            *sections,
            f"{written} {f'Checked: {checked}.' if checked else ''}".strip() + "\n",
        ]
    )


def _rows(values: Mapping[str, str]) -> list[str]:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")

    return [f"| {cell(name)} | {cell(value)} |" for name, value in values.items()]


def _rounded(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def write_card(
    target: Path, *, network: nn.Module | None, facts: Facts, names: str, checked: str
) -> Path:
    """Write the card of a file beside it, as ``FILE.md``, and return its path."""
    card = target.with_name(f"{target.name}.md")
    text = model_card(target.name, network=network, facts=facts, names=names, checked=checked)
    with replacing(card) as file:
        file.write(text.encode())
    return card


def card_metadata(facts: Facts) -> dict[str, str]:
    """Return the metadata by which a file keeps what its card says."""
    return {"card": json.dumps(facts, sort_keys=True)} if facts else {}
