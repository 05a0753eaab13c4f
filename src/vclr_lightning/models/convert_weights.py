"""Convert the backbone of any recognised checkpoint for another program."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.models.agreement import check_features, library_features, probe_pixels
from vclr_lightning.models.checkpoints import MARK, Checkpoint, read_checkpoint, recognise
from vclr_lightning.models.export import export_backbone, export_metadata, rebuilt
from vclr_lightning.models.foreign_names import LAYOUTS
from vclr_lightning.models.model_card import card_facts, card_metadata, write_card
from vclr_lightning.models.network_spec import (
    describe_spec,
    known_spec,
)
from vclr_lightning.models.onnx_file import write_onnx
from vclr_lightning.models.renamed_weights import renamed_tensors
from vclr_lightning.models.run_record import run_config
from vclr_lightning.models.trusted_networks import trusted_spec
from vclr_lightning.models.weights import FORMS, group_names

if TYPE_CHECKING:
    from rich.table import Table

_ENDINGS = (".safetensors", ".pth", ".pt", ".onnx")


@dataclass(frozen=True)
class Conversion:
    """What was read, checked and written.

    Attributes:
        source: the file read.
        target: the file written.
        form: layout of the source.
        backbone: the network, as Python code; ``""`` if it is none of this package's.
        names: names of the tensors written.
        left: names in the source that are not written.
        checked: how the features of source and target agree.
        card: the model card beside the target.
    """

    source: Path
    target: Path
    form: str
    backbone: str
    names: tuple[str, ...]
    left: tuple[str, ...]
    checked: str
    card: Path

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
        table.add_row("checked", self.checked)
        table.add_row("model card", str(self.card))
        return table


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    names: str = "own",
    prefix: str | None = None,
    results: Sequence[Path] = (),
) -> Conversion:
    """Write the backbone of a checkpoint for another program, with a model card beside it.

    Nothing is written unless the written weights, read again in the other program's network or
    under its names, give the features of the source.

    Args:
        source: a file that :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises.
        target: the file to write; its ending chooses the format: ``.safetensors``, ``.pth`` or
            ``.pt`` for a state dict, ``.onnx`` for a program.
        names: of :data:`~vclr_lightning.models.foreign_names.LAYOUTS`: the network's own names,
            which torchvision and timm share where they have the network; those of MoCo v2 or the
            released VCLR, with their heads; or MMAction2's, with the classifier of a finetuned
            network, of its ``ResNetTSM`` for ``"mmaction-tsm"`` and where the source is a TSM.
        prefix: prefix of the backbone's names in a file of another layout.
        results: ``result.json`` of evaluations, whose numbers go into the card.

    Raises:
        UserError: the source cannot be read, its backbone cannot be identified, its network has no
            such names or computes something else under them, or the ending of ``target`` is
            unknown.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.models import TorchvisionResNet
        >>> folder = Path(tempfile.mkdtemp())
        >>> file = export_backbone(TorchvisionResNet(name="resnet18"), folder / "b.safetensors")
        >>> convert_checkpoint(file, folder / "tsn.pth", names="mmaction").names[0]
        'backbone.conv1.bn.bias'
    """
    source, target = Path(source), Path(target)
    _check_target(target, names)
    checkpoint = read_checkpoint(source, prefix=prefix)
    tensors, spec = checkpoint.backbone(), known_spec(checkpoint)
    facts = card_facts(checkpoint, results=results)
    metadata = card_metadata(facts)
    if target.suffix == ".onnx":
        used = _sources(checkpoint, tensors)
        network = rebuilt(checkpoint)
        with replacing(target) as file:
            checked = write_onnx(
                network,
                file,
                pixels=_pixels_of_run(network, source),
                metadata=export_metadata(checkpoint) | metadata,
            )
        written = tensors
    elif names in ("own", "torchvision", "timm"):
        used, written = _sources(checkpoint, tensors), tensors
        metadata = export_metadata(checkpoint) | metadata
        again = recognise(target, tensors, metadata)
        if names == "own" and (not spec or trusted_spec(spec) is None):
            network, checked = None, "names and tensors alone: the file's network is not known"
        else:
            network = rebuilt(checkpoint)
            checked = (
                check_features(network, rebuilt(again), what="the written file")
                if names == "own"
                else library_features(names, network, spec, tensors)
            )
        if target.suffix == ".safetensors":
            export_backbone(source, target, prefix=prefix, metadata=metadata)
        else:  # the metadata is where PyTorch keeps the versions of layers
            _save(tensors, target, metadata=metadata)
    else:
        written, used, network = renamed_tensors(checkpoint, names)
        again = recognise(target, written, {})
        checked = check_features(
            network, rebuilt(again), what=f"the file under {LAYOUTS[names].title}'s names"
        )
        _save(written, target, nested=LAYOUTS[names].nested)
    return Conversion(
        source=source,
        target=target,
        form=checkpoint.form,
        backbone=describe_spec(spec) if spec else "",
        names=tuple(written),
        left=tuple(name for name in checkpoint.tensors if name not in used),
        checked=checked,
        card=write_card(target, network=network, facts=facts, names=names, checked=checked),
    )


def _check_target(target: Path, names: str) -> None:
    if names not in LAYOUTS:
        raise UserError(f"names={names!r} are of no known program; take {', '.join(LAYOUTS)}")
    if target.suffix not in _ENDINGS:
        raise UserError(f"{target} must end in {', '.join(_ENDINGS)}, which choose the format")
    if names not in ("own", "torchvision", "timm") and target.suffix not in (".pth", ".pt"):
        raise UserError(
            f"{target} cannot have names={names}, whose program does not read it; write a .pth"
        )


def _pixels_of_run(network: nn.Module, source: Path) -> Tensor:
    """Return random pixels of the size that the network was trained on, as far as that is known."""
    config = run_config(source)
    sizes = [config.get(key) for key in ("image_size", "frames_per_clip")]
    size, frames = (value if type(value) is int and value > 0 else None for value in sizes)
    default = int(getattr(network, "image_size", 224))
    return probe_pixels(network, size=size or default, frames=frames or 8)


def _sources(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> set[str]:
    return {f"{checkpoint.prefix}{name}" for name in tensors}


def _save(
    tensors: Mapping[str, Tensor],
    target: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    nested: bool = False,
) -> None:
    written = OrderedDict((name, tensor.clone()) for name, tensor in tensors.items())
    if metadata is not None:
        written._metadata = {MARK: dict(metadata)}  # type: ignore[attr-defined]
    with replacing(target) as file:
        torch.save({"state_dict": written} if nested else written, file)
