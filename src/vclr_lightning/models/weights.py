"""Initial weights, matched by name, with a report of what was loaded, missing and unused."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import pixel_statistics
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.checkpoints import Checkpoint, read_checkpoint
from vclr_lightning.models.foreign_names import LAYOUTS
from vclr_lightning.models.match_weights import find_backbone, shape_problem
from vclr_lightning.models.network_spec import (
    BACKBONES,
    describe_spec,
    known_spec,
)

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

FORMS = {name: layout.title for name, layout in LAYOUTS.items()} | {
    "vclr_lightning": "vclr_lightning",
    "other": "other",
}


@dataclass(frozen=True)
class WeightReport:
    """What was loaded from a weights file.

    Attributes:
        path: the file.
        form: its layout.
        loaded: names of the tensors of the module that were loaded.
        missing: names of the module's backbone that the file does not have.
        left: names in the file that were not used.
    """

    path: str
    form: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a log or a checkpoint."""
        return asdict(self)

    def table(self) -> Table:
        """Return a table for the terminal, with names grouped by their first parts."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=f"initial weights: {self.path} ({FORMS[self.form]})")
        table.add_column("")
        table.add_column("tensors", justify="right")
        table.add_column("names")
        for what, names in [
            ("loaded", self.loaded),
            ("missing in the file", self.missing),
            ("left in the file", self.left),
        ]:
            table.add_row(what, str(len(names)), ", ".join(group_names(names)))
        return table


def group_names(names: tuple[str, ...]) -> list[str]:
    """Group names by the modules they belong to, with the number of tensors of each.

    Example:
        >>> group_names(("conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias"))
        ['conv1 (1)', 'layer1 (2)']
    """
    wrappers = {"module", "encoder_q", "encoder_k", "objectives", "query_encoder", "key_encoder"}
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        depth = next((i for i, part in enumerate(parts) if part not in wrappers), 0)
        depth += "objectives" in parts[:depth]  # objectives.inter.queue, not objectives.inter
        counts[".".join(parts[: depth + 1])] += 1
    return [f"{key} ({count})" for key, count in counts.items()]


@torch.no_grad()
def load_initial_weights(
    module: nn.Module, path: str | Path, *, prefix: str | None = None, heads: bool = True
) -> WeightReport:
    """Load a file's weights into a backbone, or into the query side of a pretraining module.

    Tensors are matched by name, never by position, and all shapes are checked before any tensor is
    changed. A MoCo v2 head initialises the head of every objective (Section 4.1 of the paper);
    heads of VCLR checkpoints go to the objectives of the same names. Then the momentum encoder is
    reset to a copy of the query encoder, if ``module`` has ``reset_key_encoder``.

    Args:
        module: a backbone; or a module whose backbone is its ``query_encoder``, and whose
            ``objectives`` have heads named ``query_head``.
        path: a file that :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises.
        prefix: prefix of the backbone's names in a file of another layout.
        heads: load the heads as well.

    Raises:
        UserError: the file cannot be read, contains nothing for this backbone or only a part of
            one of its children, or a shape differs; the module is unchanged.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.models import TinyBackbone
        >>> file = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> torch.save(TinyBackbone(width=8).state_dict(), file)
        >>> report = load_initial_weights(TinyBackbone(width=8), file)
        >>> len(report.loaded), report.missing, report.left
        (60, (), ())
    """
    checkpoint = read_checkpoint(path, prefix=prefix)
    outer = "query_encoder." if hasattr(module, "query_encoder") else ""
    encoder = getattr(module, "query_encoder", module)
    assert isinstance(encoder, nn.Module)
    backbone = unwrap(encoder)
    sources = {outer + name: source for name, source in find_backbone(checkpoint, backbone).items()}
    _warn_of_differences(checkpoint, encoder)
    target = {outer + name: tensor for name, tensor in backbone.state_dict(keep_vars=True).items()}
    missing = tuple(name for name in target if name not in sources)
    if heads:
        for name, tensor, source in _heads(checkpoint, module):
            target[name], sources[name] = tensor, source
    for name, tensor, source in _context(checkpoint, module):
        target[name], sources[name] = tensor, source
    for name, source in sources.items():
        target[name].copy_(checkpoint.tensors[source])
    if callable(reset := getattr(module, "reset_key_encoder", None)):
        reset()
    used = set(sources.values())
    return WeightReport(
        path=str(path),
        form=checkpoint.form,
        loaded=tuple(sources),
        missing=missing,
        left=tuple(name for name in checkpoint.tensors if name not in used),
    )


def _heads(checkpoint: Checkpoint, module: nn.Module) -> list[tuple[str, Tensor, str]]:
    """List name, tensor and source of each head's and classifier's weights in the file."""
    objectives = getattr(module, "objectives", None)
    matched: list[tuple[str, Tensor, str]] = []
    if not isinstance(objectives, nn.ModuleDict):
        return matched
    parts = [("query_head", checkpoint.heads), ("classifier", checkpoint.classifiers)]
    for name, objective in objectives.items():
        for part, prefixes in parts:
            prefix = prefixes.get(name, prefixes.get("*"))
            child = getattr(objective, part, None)
            if prefix is None or not isinstance(child, nn.Module):
                continue
            own = child.state_dict(keep_vars=True)
            # all or nothing: a file's head of another depth (MoCo v1: one layer) does not fit
            if own.keys() != checkpoint.under(prefix).keys():
                continue
            for key, tensor in own.items():
                if problem := shape_problem(checkpoint, prefix + key, tensor):
                    raise UserError(
                        f"{problem}; set embedding_dim and num_segments to the file's, or leave "
                        "its heads out"
                    )
                matched.append((f"objectives.{name}.{part}.{key}", tensor, prefix + key))
    return matched


_GATES = {"update": "update_gate", "reset": "reset_gate", "new": "out_gate"}  # in DPC's own files


def _context(checkpoint: Checkpoint, module: nn.Module) -> list[tuple[str, Tensor, str]]:
    """List name, tensor and source of the weights of a classifier's ConvGRU in the file.

    DPC has pretrained one; without it in the file, a warning says that it starts at random.
    """
    gru = getattr(getattr(module, "context", None), "gru", None)
    if not isinstance(gru, nn.Module):
        return []
    first, names = "update.weight", list(checkpoint.tensors)
    own = [n.removesuffix(first) for n in names if n.endswith(f".gru.{first}")]
    theirs = [n for n in names if n.endswith("ConvGRUCell_00.update_gate.weight")]
    state = gru.state_dict(keep_vars=True)
    if own:
        sources = {name: own[0] + name for name in state}
    elif theirs:
        start = theirs[0].removesuffix("update_gate.weight")
        sources = {f"{g}.{p}": f"{start}{_GATES[g]}.{p}" for g, p in (n.split(".") for n in state)}
    else:
        logger.warning(
            "%s holds no ConvGRU, as checkpoints of objective=dpc do; the classifier's starts from "
            "random weights",
            checkpoint.path,
        )
        return []
    for name, source in sources.items():
        if source not in checkpoint.tensors:
            raise UserError(f"{checkpoint.path} holds only a part of a ConvGRU, without {source}")
        if problem := shape_problem(checkpoint, source, state[name]):
            raise UserError(f"{problem}; the classifier's ConvGRU does not fit")
    return [(f"context.gru.{name}", state[name], source) for name, source in sources.items()]


def _warn_of_differences(checkpoint: Checkpoint, encoder: nn.Module) -> None:
    """Warn of weights that were trained in another class or with other pixel statistics."""
    spec = known_spec(checkpoint)
    pixels = [list(values) for values in pixel_statistics(encoder)]
    if spec.get("_pixels_") and spec["_pixels_"] != pixels:
        logger.warning(
            "%s was trained on pictures normalised by mean and std %s, and this run takes %s; set "
            "module.mean and module.std to keep those of its training",
            *(checkpoint.path, spec["_pixels_"], pixels),
        )
    name = type(unwrap(encoder)).__name__
    known = spec.get("_target_", "") in ("", *BACKBONES)
    if not known and name not in (_class_name(spec), _class_name(spec.get("net", {}))):
        logger.warning(
            "%s was trained as %s; its weights initialise a %s, which need not compute the same. "
            "Pass that network as backbone= to continue with it.",
            *(checkpoint.path, describe_spec(spec), name),
        )


def _class_name(spec: Any) -> str:
    return str(spec.get("_target_") if isinstance(spec, Mapping) else None).rpartition(".")[2]
