"""The backbone alone: exported to safetensors, and loaded in any project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from vclr_lightning import __version__
from vclr_lightning.core.arrays import CHECKSUM, exported_digest
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.random import seed_of
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.checkpoints import MARK, Checkpoint, read_checkpoint
from vclr_lightning.models.hub_file import HUB, hub_file
from vclr_lightning.models.match_weights import find_backbone
from vclr_lightning.models.network_identity import check_identity, unknown_network
from vclr_lightning.models.network_spec import (
    BACKBONES,
    describe_spec,
    known_spec,
    say_recognised,
    set_pixel_statistics,
    spec_arguments,
    spec_of,
    weight_shapes,
)
from vclr_lightning.models.trusted_networks import build_backbone, trusted_spec


def export_backbone(
    source: nn.Module | str | Path,
    path: str | Path,
    *,
    prefix: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the query backbone alone to a safetensors file, atomically.

    Names are the network's own, so a ResNet's are torchvision's. The metadata contains the package
    version, how the backbone is built, and the method and number of steps of its training, as far
    as they are known.

    Args:
        source: a pretraining module, a backbone, or a checkpoint file of any recognised layout.
        path: the file to write.
        prefix: prefix of the backbone's names in a checkpoint of another layout.
        metadata: further metadata.

    Returns:
        ``path``.

    Raises:
        UserError: the source is no readable checkpoint, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.models import TinyBackbone
        >>> file = export_backbone(TinyBackbone(width=8), tempfile.mkdtemp() + "/b.safetensors")
        >>> load_backbone(file).num_features
        64
    """
    if isinstance(source, nn.Module):
        backbone = getattr(source, "query_encoder", source)
        assert isinstance(backbone, nn.Module)
        tensors, facts = unwrap(backbone).state_dict(), _module_metadata(source, backbone)
    else:
        checkpoint = read_checkpoint(source, prefix=prefix)
        tensors, facts = checkpoint.backbone(), export_metadata(checkpoint)
    # one copy each: safetensors refuses two names for one memory
    content = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    path = Path(path)
    with replacing(path) as file:
        file.write(
            _sealed(save(content, metadata={MARK: __version__, **facts, **(metadata or {})}))
        )
    return path


def load_backbone(
    path: str | Path,
    backbone: nn.Module | None = None,
    *,
    prefix: str | None = None,
    train: bool = False,
) -> nn.Module:
    """Return a backbone with the weights of a file.

    Args:
        path: an export of this package, or any file that
            :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises; or
            ``hf://USER/REPOSITORY`` of the Hugging Face hub (``@REVISION`` behind it).
        backbone: the network to load into, yours or another library's; its children that the file
            does not contain, such as a classifier, keep their weights. ``None`` builds the network
            of the file, if it is one of this package's, or of your
            :func:`~vclr_lightning.models.register_backbone`.
        prefix: prefix of the backbone's names in a file of another layout.
        train: return it in training mode, to finetune it, instead of evaluation mode.

    Raises:
        UserError: the file cannot be read, does not fit, does not identify its network, or records
            a class of yours that ``backbone`` is not of.

    Example:
        >>> import tempfile, torch
        >>> from torchvision.models import resnet18
        >>> from vclr_lightning.models import TorchvisionResNet
        >>> file = Path(tempfile.mkdtemp()) / "b.safetensors"
        >>> _ = export_backbone(TorchvisionResNet(name="resnet18"), file)
        >>> classifier = load_backbone(file, resnet18(num_classes=5))
        >>> classifier(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5])
    """
    named = isinstance(path, str) and path.startswith(HUB)
    checkpoint = read_checkpoint(hub_file(str(path)) if named else path, prefix=prefix)
    if backbone is None:
        backbone = _build(checkpoint)
    else:
        check_identity(checkpoint, backbone)
    return filled(backbone, checkpoint).train(train)


def filled(backbone: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """Load a checkpoint's weights into a backbone, and return it.

    Raises:
        UserError: they do not fit, or are of more layers than it has.
    """
    net = unwrap(backbone)
    found = find_backbone(checkpoint, net)
    if checkpoint.prefix is not None:
        names, used = weight_shapes(checkpoint.backbone()), set(found.values())
        unused = sorted(name for name in names if checkpoint.prefix + name not in used)
        if unused:
            raise UserError(
                f"{checkpoint.path} holds {unused[0]} and {len(unused) - 1} more tensors that this "
                f"{type(net).__name__} does not have; build the network that the file is of"
            )
    net.load_state_dict(
        {n: checkpoint.tensors[source] for n, source in found.items()}, strict=False
    )
    return set_pixel_statistics(backbone, known_spec(checkpoint))


def rebuilt(checkpoint: Checkpoint) -> nn.Module:
    """Return the network of a checkpoint with its weights, in evaluation mode.

    Raises:
        UserError: the checkpoint does not identify its network, or does not fit it.
    """
    return filled(_build(checkpoint, say=False), checkpoint).eval()


def random_backbone(path: str | Path, *, prefix: str | None = None, seed: int = 0) -> nn.Module:
    """Return the network of a file, in evaluation mode, with random weights that ``seed`` fixes.

    Args:
        path, prefix: see :func:`load_backbone`.
        seed: of the weights.

    Raises:
        UserError: the file cannot be read, or does not identify its network.
    """
    checkpoint = read_checkpoint(path, prefix=prefix)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed_of(seed, "random_backbone"))
        return _build(checkpoint).eval()


def _build(checkpoint: Checkpoint, *, say: bool = True) -> nn.Module:
    """Build the network of a checkpoint; with ``say``, warn of one that it does not name."""
    stated = known_spec(checkpoint)
    if not stated:
        checkpoint.backbone()  # raises where a prefix would help
    spec = trusted_spec(stated)
    if spec is None:
        raise unknown_network(checkpoint.path, stated)
    if say:
        say_recognised(checkpoint, spec)
    check_spec(checkpoint, spec)
    return build_backbone(spec)


def check_spec(checkpoint: Checkpoint, spec: Mapping[str, Any]) -> None:
    """Compare the spec recorded in a file with its weights, before it can claim any memory.

    Of this package's networks alone: a user's own need not support the meta device.

    Raises:
        UserError: the network cannot be built like this, or does not fit the weights.
    """
    if spec["_target_"] not in BACKBONES:
        return
    try:
        spec_arguments(spec)
        # timm's networks cannot be built on the meta device; their sizes are timm's.
        if not spec["_target_"].endswith(".TimmBackbone"):
            with torch.device("meta"):
                find_backbone(checkpoint, build_backbone(spec))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"{checkpoint.path} cannot be of {describe_spec(spec)}, as it says: {error}"
        ) from error


def _module_metadata(module: nn.Module, backbone: nn.Module) -> dict[str, str]:
    facts = _spec_metadata(spec_of(backbone))
    if isinstance(head := getattr(module, "head", None), str):
        facts["head"] = head
    if isinstance(objectives := getattr(module, "objectives", None), nn.ModuleDict):
        facts["method"] = "+".join(objectives)
        facts["step"] = str(int(getattr(module, "global_step", 0)))
    return facts


def export_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata for an export of this checkpoint."""
    facts = {MARK: __version__, **checkpoint.metadata}
    if "global_step" in facts:
        facts["step"] = facts.pop("global_step")
    if checkpoint.form == "vclr_lightning" and checkpoint.heads:
        facts["method"] = "+".join(checkpoint.heads)
    return facts | _spec_metadata(known_spec(checkpoint))


def _spec_metadata(spec: Mapping[str, Any]) -> dict[str, str]:
    return {"backbone": json.dumps(dict(spec))} if spec else {}


def _sealed(content: bytes) -> bytes:
    """Sort a safetensors file's metadata, so that equal content gives equal files, and add a
    checksum."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    digest = exported_digest(header, memoryview(content)[start:])
    header["__metadata__"] = dict(sorted({**header["__metadata__"], CHECKSUM: digest}.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[start:]
