"""Names of weights in other programs: one table each, written by it and recognised by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ForeignNames:
    """How a program names the tensors of a network.

    Attributes:
        title: the program, for a reader.
        prefix: of the backbone's names.
        rules: pairs of a pattern and its replacement, from torchvision's names of a ResNet, applied
            in turn; none where the names are the network's own.
        heads: prefix of each objective's head; ``"*"`` for the only one.
        classifiers: of the linear classifier of an objective; ``"*"``: of a finetuned network.
        nested: whether the tensors are in a mapping ``state_dict``, beside others.
        shifted: the network shifts channels between frames.
        builds: the network that the program itself builds is asked for its features.
    """

    title: str
    prefix: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    heads: Mapping[str, str] = field(default_factory=dict)
    classifiers: Mapping[str, str] = field(default_factory=dict)
    nested: bool = False
    shifted: bool = False
    builds: bool = False


_CONV_MODULES = (
    (r"(^|\.)conv(\d)\.", r"\1conv\2.conv."),
    (r"(^|\.)bn(\d)\.", r"\1conv\2.bn."),
    (r"downsample\.0\.", "downsample.conv."),
    (r"downsample\.1\.", "downsample.bn."),
)
_FROM_CONV_MODULES = (
    (r"conv(\d)\.conv\.(net\.)?", r"conv\1."),
    (r"conv(\d)\.bn\.", r"bn\1."),
    (r"downsample\.conv\.", "downsample.0."),
    (r"downsample\.bn\.", "downsample.1."),
)
_RECOGNIZER = {"*": "cls_head.fc_cls."}

LAYOUTS: Mapping[str, ForeignNames] = {
    "own": ForeignNames(title="vclr_lightning"),
    "torchvision": ForeignNames(title="torchvision", builds=True),
    "timm": ForeignNames(title="timm", builds=True),
    "moco": ForeignNames(
        title="MoCo v2",
        prefix="module.encoder_q.",
        heads={"*": "module.encoder_q.fc."},
        nested=True,
    ),
    "released": ForeignNames(
        title="released VCLR code",
        prefix="module.",
        heads={
            "inter": "module.fc_inter.",
            "intra": "module.fc_intra.",
            "video": "module.fc_tsn.",
            "order": "module.fc_order.",
        },
        classifiers={"order": "module.fc_order_classifier."},
        nested=True,
    ),
    "mmaction": ForeignNames(
        title="MMAction2",
        prefix="backbone.",
        rules=_CONV_MODULES,
        classifiers=_RECOGNIZER,
        nested=True,
    ),
    "mmaction-tsm": ForeignNames(
        title="MMAction2",
        prefix="backbone.",
        rules=_CONV_MODULES,
        classifiers=_RECOGNIZER,
        nested=True,
        shifted=True,
    ),
}
"""By the name in a command."""

EVERY = {"resnet18": 1, "resnet34": 1, "resnet50": 1, "resnet101": 2, "resnet152": 2}
"""MMAction2's 2D ResNets, and before which of their blocks its TSM shifts: every block of those
whose third layer has fewer than 23, every other block of deeper ones."""

_FIRST = re.compile(r"(backbone\.)?layer1\.0\.(net\.|block\.)?conv1\.conv\.(net\.)?weight")
_SHIFTED = re.compile(r"layer\d\.(\d+)\.conv1\.conv\.")


def foreign_name(name: str, layout: ForeignNames, *, every: int = 1) -> str:
    """Return a backbone's name of a tensor in another program.

    Args:
        name: torchvision's.
        layout: of the program.
        every: number of blocks from one with a shift to the next, where the network has shifts.

    Example:
        >>> foreign_name("layer1.0.conv1.weight", LAYOUTS["mmaction-tsm"])
        'backbone.layer1.0.conv1.conv.net.weight'
    """
    name = _replaced(name, layout.rules)
    if layout.shifted and (place := _SHIFTED.match(name)) and int(place[1]) % every == 0:
        name = f"{place[0]}net.{name[place.end() :]}"
    return layout.prefix + name


def from_mmaction(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str, int] | None:
    """Give the tensors of a recognizer of MMAction2 torchvision's names.

    Returns:
        The tensors, the prefix of the backbone's names, and the number of blocks from one with a
        shift to the next, 0 without shifts; ``None`` where these are no such tensors.

    Raises:
        UserError: the network has shifts or blocks that none of this package's has.

    Example:
        >>> import torch
        >>> names = ["backbone.layer1.0.conv1.conv.net.weight", "backbone.layer1.0.conv1.bn.bias"]
        >>> found, prefix, every = from_mmaction(dict.fromkeys(names, torch.zeros(1)))
        >>> list(found), prefix, every
        (['backbone.layer1.0.conv1.weight', 'backbone.layer1.0.bn1.bias'], 'backbone.', 1)
    """
    first = next((m for name in tensors if (m := _FIRST.fullmatch(name))), None)
    if first is None:
        return None
    prefix = first[1] or ""
    own = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    blocks = {m[0] for name in own if (m := re.match(r"layer\d\.\d+\.", name))}
    shifted = {
        m[0] for name in own if (m := re.match(r"layer\d\.\d+\.(?=conv1\.conv\.net\.)", name))
    }
    odd = [n for n in own if re.search(r"\.block\.|non_local|(layer\d|\.\d+)\.net\.", n)]
    even = {name for name in blocks if int(name.split(".")[1]) % 2 == 0}
    if odd or shifted not in (set(), blocks, even):
        raise UserError(
            f"the weights are of a TSM of MMAction2 with {odd[0] if odd else 'shifts elsewhere'}, "
            "which no network here has; take one with shift_place=blockres and no non-local blocks"
        )
    renamed = {
        prefix + _replaced(name.removeprefix(prefix), _FROM_CONV_MODULES)
        if name.startswith(prefix)
        else name: tensor
        for name, tensor in tensors.items()
    }
    return renamed, prefix, 0 if not shifted else 1 if shifted == blocks else 2


def _replaced(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
