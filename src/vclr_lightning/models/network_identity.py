"""Whether weights are put into the network that they were trained in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.checkpoints import Checkpoint
from vclr_lightning.models.network_spec import BACKBONES, describe_spec, spec_of, weight_shapes
from vclr_lightning.models.trusted_networks import lacks_arguments

logger = logging.getLogger(__name__)

_ALIKE = {f"vclr_lightning.models.{kind}" for kind in ("TorchvisionResNet", "TimmBackbone")}


def check_identity(checkpoint: Checkpoint, backbone: nn.Module) -> None:
    """Refuse weights in a network of another class than the file records, though names are shared.

    Networks of other libraries take this package's, which have their names. Other arguments than
    those of the training are warned of.

    Raises:
        UserError: the file records another class.
    """
    stated, own = checkpoint.spec, spec_of(backbone)
    net = type(unwrap(backbone))
    recorded = str(stated.get("_class_") or stated.get("net", stated).get("_target_"))
    other = recorded.rpartition(".")[2] != net.__name__  # modules may move
    if other and recorded in BACKBONES:
        both = {recorded, str(own["_target_"])}
        other = both <= BACKBONES.keys() and not both <= _ALIKE
        other = other and _same_shapes(checkpoint, backbone)
    if stated and other:
        raise UserError(
            f"{checkpoint.path} holds weights of {describe_spec(stated)}, from which "
            f"{net.__name__} would compute something else; {_how_to_name(stated)}"
        )
    if "_arguments_" in (stated | own) or stated.get("_target_") != own.get("_target_"):
        return
    changed = [k for k in stated if k[:1] != "_" and k in own and own[k] != stated[k]]
    if changed:
        logger.warning(
            "%s was trained as %s, and this network has %s; without backbone it is the first",
            *(checkpoint.path, describe_spec(stated), ", ".join(f"{k}={own[k]}" for k in changed)),
        )


def _same_shapes(checkpoint: Checkpoint, backbone: nn.Module) -> bool:
    return weight_shapes(checkpoint.backbone()) == weight_shapes(unwrap(backbone).state_dict())


def unknown_network(path: str | Path, spec: Mapping[str, Any]) -> UserError:
    """Return the error for a file whose network may not be built, or is not known."""
    what = describe_spec(spec) if spec else "a network that is not recognised"
    if spec:
        lacks = lacks_arguments(spec)
        what += (
            ", whose arguments it does not record" if lacks else ", none of this package's networks"
        )
    return UserError(f"{path} holds weights of {what}; {_how_to_name(spec)}")


def _how_to_name(spec: Mapping[str, Any]) -> str:
    if spec.get("_target_") in BACKBONES:
        return "leave backbone out, or give backbone=as_init"
    if not spec or lacks_arguments(spec):
        return (
            "build it and pass it as backbone=; in a command, name its class in "
            "conf/backbone/NAME.yaml and give --config-dir conf backbone=NAME"
        )
    return (
        "give --config-dir FOLDER of the project whose backbone/NAME.yaml names it, or in Python "
        "call register_backbone, or build it and pass it as backbone="
    )
