"""Convert the backbone of any recognised checkpoint for another program."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.models.checkpoints import MARK, read_checkpoint
from vclr_lightning.models.export import export_backbone, export_metadata
from vclr_lightning.models.network_spec import (
    describe_spec,
    known_spec,
    recognise_backbone,
)
from vclr_lightning.models.weights import FORMS, group_names

if TYPE_CHECKING:
    from rich.table import Table

_RESNETS = tuple(
    f"vclr_lightning.models.{name}" for name in ("TorchvisionResNet", "TimmBackbone", "TSMResNet")
)

Names = Literal["own", "mmaction", "mmaction-tsm"]

_CONV = re.compile(r"(^|\.)conv(\d)\.")
_NORM = re.compile(r"(^|\.)bn(\d)\.")
_BLOCK = re.compile(r"(layer\d)\.(\d+)\.conv1\.conv\.")
# MMAction2's 2D ResNets, and before which of their blocks its TSM shifts: every block of those
# whose third layer has fewer than 23, every other block of deeper ones.
_EVERY = {"resnet18": 1, "resnet34": 1, "resnet50": 1, "resnet101": 2, "resnet152": 2}


@dataclass(frozen=True)
class Conversion:
    """What was read and written.

    Attributes:
        source: the file read.
        target: the file written.
        form: layout of the source.
        backbone: the network, as Python code; ``""`` if it is none of this package's.
        names: names of the tensors written.
        left: names in the source that belong to no backbone.
    """

    source: Path
    target: Path
    form: str
    backbone: str
    names: tuple[str, ...]
    left: tuple[str, ...]

    def table(self) -> Table:
        """Return a table for the terminal."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(show_header=False)
        table.add_column()
        table.add_column()
        table.add_row("read", f"{self.source} ({FORMS[self.form]})")
        table.add_row("backbone", self.backbone or "not one of this package's")
        table.add_row("written", f"{self.target}, {len(self.names)} tensors")
        table.add_row("names", ", ".join(group_names(self.names)))
        table.add_row("left out", ", ".join(group_names(self.left)) or "nothing")
        return table


def convert_checkpoint(
    source: str | Path, target: str | Path, *, names: Names = "own", prefix: str | None = None
) -> Conversion:
    """Write the backbone of a checkpoint as ``.safetensors``, or as a ``.pth`` state dict.

    Args:
        source: a file that :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises.
        target: the file to write; its ending chooses the format.
        names: the network's own names, or those of MMAction2: of its ``ResNetTSM`` for
            ``"mmaction-tsm"``, and where the source is a TSM classifier.
        prefix: prefix of the backbone's names in a file of another layout.

    Raises:
        UserError: the source cannot be read, its backbone cannot be identified, its network has no
            such names, or the ending of ``target`` is unknown.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.models import TorchvisionResNet, export_backbone
        >>> folder = Path(tempfile.mkdtemp())
        >>> file = export_backbone(TorchvisionResNet(name="resnet18"), folder / "b.safetensors")
        >>> convert_checkpoint(file, folder / "tsn.pth", names="mmaction").names[0]
        'backbone.conv1.bn.bias'
    """
    source, target = Path(source), Path(target)
    if target.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"{target} must end in .safetensors, .pth or .pt, which choose the format")
    if target.suffix == ".safetensors" and names != "own":
        raise UserError(
            f"{target} cannot have names={names}, which this package would not load; write a .pth"
        )
    checkpoint = read_checkpoint(source, prefix=prefix)
    tensors = checkpoint.backbone()
    spec = known_spec(checkpoint)
    used = {f"{checkpoint.prefix}{name}" for name in tensors}
    if target.suffix == ".safetensors":
        export_backbone(source, target, prefix=prefix)
    else:
        if names != "own":
            if spec and spec["_target_"] not in _RESNETS:  # even if its names are a ResNet's
                raise UserError(
                    f"MMAction2 has no names for {describe_spec(spec)}; leave --names out"
                )
            shifted = spec.get("_target_") == "vclr_lightning.models.TSMResNet"
            if shifted and spec.get("divisions", 8) != 8:
                raise UserError(f"MMAction2's TSM shifts by 8 divisions, not {describe_spec(spec)}")
            trained = shifted or checkpoint.metadata.get("head") == "tsm"
            tensors = mmaction_names(
                tensors, tsm=trained or names == "mmaction-tsm", every_block=trained
            )
        written = OrderedDict((name, tensor.clone()) for name, tensor in tensors.items())
        if names == "own":  # where PyTorch keeps the versions of layers
            written._metadata = {MARK: export_metadata(checkpoint)}  # type: ignore[attr-defined]
        with replacing(target) as file:
            torch.save(written, file)
    return Conversion(
        source=source,
        target=target,
        form=checkpoint.form,
        backbone=describe_spec(spec) if spec else "",
        names=tuple(tensors),
        left=tuple(name for name in checkpoint.tensors if name not in used),
    )


def mmaction_names(
    tensors: Mapping[str, Tensor], *, tsm: bool = False, every_block: bool = False
) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet to those of MMAction2's recognizers.

    There, every convolution and its norm layer are one module, under ``backbone``.

    Args:
        tensors: of a ResNet of depth 18, 34, 50, 101 or 152.
        tsm: for ``ResNetTSM``, where convolutions after a shift are in a ``net``.
        every_block: the network was trained with a shift before every block.

    Raises:
        UserError: these are not the weights of such a ResNet, or MMAction2 would shift it in other
            places.

    Example:
        >>> from torchvision.models import resnet18
        >>> weights = {n: t for n, t in resnet18().state_dict().items() if not n.startswith("fc.")}
        >>> list(mmaction_names(weights))[0], list(mmaction_names(weights, tsm=True))[6]
        ('backbone.conv1.conv.weight', 'backbone.layer1.0.conv1.conv.net.weight')
    """
    spec = recognise_backbone(tensors)
    every = _EVERY.get(spec["name"]) if spec and not spec.get("small_stem", True) else None
    if spec is None or every is None:
        what = describe_spec(spec) if spec else f"networks with weights like {next(iter(tensors))}"
        raise UserError(f"MMAction2 has no names for {what}; it knows {', '.join(_EVERY)}")
    if every_block and every > 1:
        raise UserError(
            f"MMAction2's TSM shifts before every other block of a {spec['name']}, and this one "
            "was trained with a shift before each: its scores would differ there"
        )

    def wrapped(block: re.Match[str]) -> str:
        return block[0] + ("net." if int(block[2]) % every == 0 else "")

    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _CONV.sub(r"\1conv\2.conv.", name)
        new = _NORM.sub(r"\1conv\2.bn.", new)
        new = new.replace("downsample.0.", "downsample.conv.")
        new = new.replace("downsample.1.", "downsample.bn.")
        renamed[f"backbone.{_BLOCK.sub(wrapped, new) if tsm else new}"] = tensor
    return renamed
