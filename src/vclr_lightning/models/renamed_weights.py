"""Weights under the names of another program, and the network that has to agree there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.checkpoints import Checkpoint
from vclr_lightning.models.export import rebuilt
from vclr_lightning.models.foreign_names import EVERY, LAYOUTS, foreign_name
from vclr_lightning.models.network_spec import describe_spec, known_spec, recognise_backbone
from vclr_lightning.models.tsm import TSMResNet

_TSM = "vclr_lightning.models.TSMResNet"
_RESNETS = (
    _TSM,
    *(f"vclr_lightning.models.{name}" for name in ("TorchvisionResNet", "TimmBackbone")),
)


def renamed_tensors(
    checkpoint: Checkpoint, names: str
) -> tuple[dict[str, Tensor], set[str], nn.Module]:
    """Give a checkpoint's backbone, heads and classifier the names of another program.

    Returns:
        The tensors, the names in the checkpoint that they come from, and the network whose features
        they must give there.

    Raises:
        UserError: the program has no such network.
    """
    title = LAYOUTS[names].title
    tensors, spec = checkpoint.backbone(), known_spec(checkpoint)
    if spec and spec["_target_"] not in _RESNETS:  # even if its names are a ResNet's
        raise UserError(f"{title} has no names for {describe_spec(spec)}; leave --names out")
    if names not in ("mmaction", "mmaction-tsm"):
        layout, network, every = LAYOUTS[names], rebuilt(checkpoint), 0
    else:
        network, every = _recognizer(checkpoint, spec, tensors, tsm=names == "mmaction-tsm")
        layout = LAYOUTS["mmaction-tsm" if every else "mmaction"]
    used = {f"{checkpoint.prefix}{name}" for name in tensors}
    renamed = {foreign_name(n, layout, every=every): tensor for n, tensor in tensors.items()}
    finetuned = {"*": "classifier."} if "head" in checkpoint.metadata else {}
    only = {"*": next(iter(checkpoint.heads.values()))} if len(checkpoint.heads) == 1 else {}
    for theirs, ours in (
        (layout.heads, only | dict(checkpoint.heads)),
        (layout.classifiers, finetuned | dict(checkpoint.classifiers)),
    ):
        for name, prefix in theirs.items():
            source = ours.get(name)
            for key, tensor in checkpoint.under(source).items() if source else ():
                renamed[prefix + key] = tensor
                used.add(f"{source}{key}")
    return renamed, used, network


def _recognizer(
    checkpoint: Checkpoint,
    spec: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    tsm: bool,
) -> tuple[nn.Module, int]:
    """Return the network that MMAction2 has to compute, and its ``every``; 0 without shifts."""
    known = recognise_backbone(tensors)
    every = EVERY.get(known["name"]) if known and not known.get("small_stem", True) else None
    if known is None or every is None:
        what = (
            describe_spec(known) if known else f"networks with weights like {next(iter(tensors))}"
        )
        raise UserError(f"MMAction2 has no names for {what}; it knows {', '.join(EVERY)}")
    shifted = spec.get("_target_") == _TSM
    finetuned = checkpoint.metadata.get("head") == "tsm"
    own, divisions = (int(spec.get(k, d)) for k, d in (("every", 1), ("divisions", 8)))
    divisions = int(checkpoint.metadata.get("shift_divisions", divisions))
    if (shifted or finetuned) and divisions != 8:
        raise UserError(f"MMAction2's TSM shifts by 8 divisions, not {divisions}")
    if (shifted or finetuned) and own != every:
        raise UserError(
            f"MMAction2's TSM shifts before {'every' if every == 1 else 'every other'} block of a "
            f"{known['name']}, and this one was trained with a shift before "
            f"{'each' if own == 1 else f'one of {own}'}: its scores would differ there"
        )
    if not (tsm or shifted or finetuned):
        return rebuilt(checkpoint), 0
    network = TSMResNet(name=known["name"], every=every)
    network.load_state_dict(dict(tensors))
    return network.eval(), every
