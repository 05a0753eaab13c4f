"""Hand the backbone of any recognised checkpoint to another program."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.models.checkpoints import MARK, read_checkpoint
from vclr_lightning.models.export import export_backbone, facts_of
from vclr_lightning.models.naming import mmaction_names
from vclr_lightning.models.recognise import BACKBONES, describe, known_spec
from vclr_lightning.models.weights import FORMS, gather_names

if TYPE_CHECKING:
    from rich.table import Table

Names = Literal["own", "mmaction", "mmaction-tsm"]


@dataclass(frozen=True)
class Conversion:
    """What was read and written.

    Attributes:
        source: the file read.
        target: the file written.
        form: whose file the source is.
        backbone: the network, as one would build it; ``""`` if it is none of this package's.
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
        table.add_row("names", ", ".join(gather_names(self.names)))
        table.add_row("left out", ", ".join(gather_names(self.left)) or "nothing")
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
        prefix: what stands before the backbone's names in a file of another form.

    Raises:
        UserError: the source cannot be read, has no backbone that can be told from the rest, or
            its network has no such names; the ending of ``target`` is unknown.

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
        raise UserError(f"{target} with names of {names} would not be loaded by it; write a .pth")
    checkpoint = read_checkpoint(source, prefix=prefix)
    tensors = checkpoint.backbone()
    spec = known_spec(checkpoint)
    used = {f"{checkpoint.prefix}{name}" for name in tensors}
    if target.suffix == ".safetensors":
        export_backbone(source, target, prefix=prefix)
    else:
        if names != "own":
            if (
                spec and spec["_target_"] not in BACKBONES
            ):  # its names may be a ResNet's all the same
                raise UserError(f"MMAction2 has no names for {describe(spec)}; leave --names out")
            trained = checkpoint.metadata.get("head") == "tsm"
            tensors = mmaction_names(
                tensors, tsm=trained or names == "mmaction-tsm", every_block=trained
            )
        written = OrderedDict((name, tensor.clone()) for name, tensor in tensors.items())
        if names == "own":  # beside the weights, where PyTorch keeps the versions of layers
            written._metadata = {MARK: facts_of(checkpoint)}  # type: ignore[attr-defined]
        with replacing(target) as file:
            torch.save(written, file)
    return Conversion(
        source=source,
        target=target,
        form=checkpoint.form,
        backbone=describe(spec) if spec else "",
        names=tuple(tensors),
        left=tuple(name for name in checkpoint.tensors if name not in used),
    )
