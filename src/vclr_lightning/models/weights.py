"""Initial weights: found in a file by name, with a report of what was loaded, missing and left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import bare
from vclr_lightning.models.checkpoints import Checkpoint, read_checkpoint
from vclr_lightning.models.recognise import (
    check_eps,
    describe,
    known_spec,
    own_spec,
    warn_of_another_network,
    weight_shapes,
)

if TYPE_CHECKING:
    from rich.table import Table

FORMS = {
    "vclr_lightning": "vclr_lightning",
    "moco": "MoCo v2",
    "released": "released VCLR code",
    "torchvision": "torchvision",
    "other": "other",
}


@dataclass(frozen=True)
class WeightReport:
    """What became of the tensors of a weights file.

    Attributes:
        path: the file.
        form: whose file it is.
        loaded: names of the tensors of the module that were loaded.
        missing: names of the module's backbone that the file does not have.
        left: names of the file that were not used.
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
        """Return a table for the terminal, names gathered by their first parts."""
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
            table.add_row(what, str(len(names)), ", ".join(gather_names(names)))
        return table


def gather_names(names: tuple[str, ...]) -> list[str]:
    """Return names by the modules they stand under, with the number of tensors of each.

    Example:
        >>> gather_names(("conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias"))
        ['conv1 (1)', 'layer1 (2)']
    """
    wrappers = {"module", "encoder_q", "encoder_k", "objectives", "query_encoder", "key_encoder"}
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        depth = next((i for i, part in enumerate(parts) if part not in wrappers), 0)
        depth += "objectives" in parts[:depth]  # objectives.inter.queue, not objectives.inter
        key = ".".join(parts[: depth + 1])
        counts[key] = counts.get(key, 0) + 1
    return [f"{key} ({count})" for key, count in counts.items()]


@torch.no_grad()
def load_initial_weights(
    module: nn.Module, path: str | Path, *, prefix: str | None = None, heads: bool = True
) -> WeightReport:
    """Load a file's weights into a backbone, or into the query side of a pretraining module.

    Tensors are matched by name, never by position, and their shapes are checked before any is
    changed. A MoCo v2 head initialises the head of every objective (Section 4.1 of the paper);
    heads of VCLR checkpoints go to the objectives of their names. Afterwards the momentum encoder
    is made a copy of the query encoder again, where ``module`` has ``reset_key_encoder``.

    Args:
        module: a backbone; or a module whose backbone is its ``query_encoder``, and whose
            ``objectives`` have heads named ``query_head``.
        path: a file that :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises.
        prefix: what stands before the backbone's names in a file of another form.
        heads: load the heads as well.

    Raises:
        UserError: the file cannot be read, holds nothing for this backbone or only a part of one
            of its children, or a tensor has another shape; the module is unchanged.

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
    backbone = bare(getattr(module, "query_encoder", module))
    assert isinstance(backbone, nn.Module)
    outer = "query_encoder." if hasattr(module, "query_encoder") else ""
    found = find_backbone(checkpoint, backbone)
    warn_of_another_network(checkpoint, getattr(module, "query_encoder", module))
    plan = {outer + name: source for name, source in found.items()}
    target = {outer + name: tensor for name, tensor in backbone.state_dict(keep_vars=True).items()}
    missing = tuple(name for name in target if name not in plan)
    if heads:
        for name, tensor, source in _heads(checkpoint, module):
            target[name], plan[name] = tensor, source
    for name, source in plan.items():
        target[name].copy_(checkpoint.tensors[source])
    if callable(reset := getattr(module, "reset_key_encoder", None)):
        reset()
    used = set(plan.values())
    return WeightReport(
        path=str(path),
        form=checkpoint.form,
        loaded=tuple(plan),
        missing=missing,
        left=tuple(name for name in checkpoint.tensors if name not in used),
    )


def find_backbone(checkpoint: Checkpoint, backbone: nn.Module) -> dict[str, str]:
    """Return the file's name of each of the backbone's tensors that the file has.

    Raises:
        UserError: none fits, a shape differs, or a child of the backbone would be loaded by half.
    """
    target = backbone.state_dict()
    prefix = checkpoint.prefix if checkpoint.prefix is not None else _prefix(checkpoint, target)
    weights = weight_shapes(target)
    if not any(prefix + name in checkpoint.tensors for name in weights):
        prefix += "net."  # which stood before a wrapped network's names in the first versions
    found = {name: prefix + name for name in target if prefix + name in checkpoint.tensors}
    if not found.keys() & weights.keys():
        raise UserError(
            f"{checkpoint.path} holds no weights for {type(backbone).__name__}: it has names like "
            f"{next(iter(checkpoint.tensors))}, not {next(iter(target))}{_fitting(checkpoint)}"
        )
    for name, source in found.items():
        if problem := _shape_problem(checkpoint, source, target[name]):
            raise UserError(problem + _fitting(checkpoint))
    check_eps(checkpoint, backbone)
    begun = {name.partition(".")[0] for name in found}
    for name in weights:
        if name not in found and name.partition(".")[0] in begun:
            raise UserError(
                f"{checkpoint.path} has no {prefix}{name}, so it holds another network than this "
                f"{type(backbone).__name__}{_fitting(checkpoint)}"
            )
    return found


def _prefix(checkpoint: Checkpoint, target: Mapping[str, Tensor]) -> str:
    """Return the only prefix under which the file has most names of the backbone."""
    first = next(iter(target))
    prefixes = [n.removesuffix(first) for n in checkpoint.tensors if n.endswith(first)]
    # a longer name may merely end alike, as in "layer1.0.conv1.weight"
    counts = {
        p: sum(p + n in checkpoint.tensors for n in target)
        for p in prefixes
        if not p or p.endswith(".")
    }
    best = [p for p, count in counts.items() if count == max(counts.values())]
    if len(best) > 1:
        raise UserError(
            f"{checkpoint.path} holds {len(best)} sets of weights that fit this backbone, under "
            f"{', '.join(repr(p) for p in best)}; choose one by prefix"
        )
    return best[0] if best else ""


def _heads(checkpoint: Checkpoint, module: nn.Module) -> list[tuple[str, Tensor, str]]:
    """List name, tensor and source of each head's and classifier's weights in the file."""
    objectives = getattr(module, "objectives", None)
    matched: list[tuple[str, Tensor, str]] = []
    if not isinstance(objectives, nn.ModuleDict):
        return matched
    for name, objective in objectives.items():
        for part, prefixes in [
            ("query_head", checkpoint.heads),
            ("classifier", checkpoint.classifiers),
        ]:
            prefix = prefixes.get(name, prefixes.get("*"))
            child = getattr(objective, part, None)
            if prefix is None or not isinstance(child, nn.Module):
                continue
            own = child.state_dict(keep_vars=True)
            # all or nothing: a file's head of another depth (MoCo v1: one layer) does not fit
            if own.keys() != checkpoint.under(prefix).keys():
                continue
            for key, tensor in own.items():
                if problem := _shape_problem(checkpoint, prefix + key, tensor):
                    raise UserError(
                        f"{problem}; set embedding_dim and num_segments to the file's, or leave "
                        "its heads out"
                    )
                matched.append((f"objectives.{name}.{part}.{key}", tensor, prefix + key))
    return matched


def _shape_problem(checkpoint: Checkpoint, source: str, target: Tensor) -> str:
    shape = checkpoint.tensors[source].shape
    if shape == target.shape:
        return ""
    return (
        f"{source} of {checkpoint.path} has shape {tuple(shape)}, but this network's has "
        f"{tuple(target.shape)}"
    )


def _fitting(checkpoint: Checkpoint) -> str:
    spec = known_spec(checkpoint)
    if not spec:
        return ""
    taken = ", which backbone=as_init takes" if own_spec(spec) else ""
    return f"; the file fits {describe(spec)}{taken}"
