"""The backbone alone: written to safetensors, and read back in any project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vclr_lightning import __version__
from vclr_lightning.core.arrays import CHECKSUM, exported_digest
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.random import seed_of
from vclr_lightning.models.backbone import bare
from vclr_lightning.models.checkpoints import MARK, Checkpoint, read_checkpoint
from vclr_lightning.models.recognise import (
    BACKBONES,
    arguments_of,
    build_backbone,
    describe,
    known_spec,
    spec_of,
    weight_shapes,
    with_pixels,
)
from vclr_lightning.models.weights import find_backbone


def export_backbone(
    source: nn.Module | str | Path,
    path: str | Path,
    *,
    prefix: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the query backbone alone to a safetensors file, in one step.

    Names are the network's own, so that a ResNet's are torchvision's. The file also says which
    package version wrote it, how the backbone is built, which method trained it and for how many
    steps, as far as that is known.

    Args:
        source: a pretraining module, a backbone, or a checkpoint file of any recognised form.
        path: the file to write.
        prefix: what stands before the backbone's names in a checkpoint of another form.
        metadata: more to write into the file.

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
        tensors, facts = _of_module(source)
    else:
        tensors, facts = _of_file(Path(source), prefix)
    facts = {MARK: __version__, **facts, **(metadata or {})}
    # one copy each: safetensors holds no two names for one memory
    content = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    path = Path(path)
    with replacing(path) as file:
        file.write(_settled(save(content, metadata=facts)))
    return path


def load_backbone(
    path: str | Path, backbone: nn.Module | None = None, *, prefix: str | None = None
) -> nn.Module:
    """Return a backbone with the weights of a file, in evaluation mode.

    Args:
        path: an export of this package, or any file that
            :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises.
        backbone: the network to fill, yours or another library's: its children that the file knows
            nothing of, such as a classifier, keep their weights. ``None`` builds the network that
            the file is of, where it is one of this package's.
        prefix: what stands before the backbone's names in a file of another form.

    Raises:
        UserError: the file cannot be read, does not fit, or does not say what network it is of.

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
    checkpoint = read_checkpoint(path, prefix=prefix)
    if backbone is None:
        backbone = _network_of(checkpoint, path)
    net = bare(backbone)
    found = find_backbone(checkpoint, net)
    if checkpoint.prefix is not None:
        names, used = weight_shapes(checkpoint.backbone()), set(found.values())
        unused = sorted(name for name in names if checkpoint.prefix + name not in used)
        if unused:
            raise UserError(
                f"{path} holds {unused[0]} and {len(unused) - 1} more tensors that this "
                f"{type(net).__name__} does not have; build the network that the file is of"
            )
    net.load_state_dict(
        {n: checkpoint.tensors[source] for n, source in found.items()}, strict=False
    )
    return with_pixels(backbone, known_spec(checkpoint)).eval()


def random_backbone(path: str | Path, *, prefix: str | None = None, seed: int = 0) -> nn.Module:
    """Return the network that a file is of, in evaluation mode, with random weights.

    What a trained one is compared with: the same for the same seed, whatever was drawn before.

    Args:
        path, prefix: see :func:`load_backbone`.
        seed: of the weights.

    Raises:
        UserError: the file cannot be read, or does not say what network it is of.
    """
    checkpoint = read_checkpoint(path, prefix=prefix)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed_of(seed, "random_backbone"))
        return _network_of(checkpoint, path).eval()


def _settled(content: bytes) -> bytes:
    """Put a safetensors file's metadata in order, which otherwise differs from one save to the
    next (equal tensors and facts shall be equal files), and add a checksum."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    digest = exported_digest(header, memoryview(content)[start:])
    header["__metadata__"] = dict(sorted({**header["__metadata__"], CHECKSUM: digest}.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[start:]


def _network_of(checkpoint: Checkpoint, path: str | Path) -> nn.Module:
    """Build the network that a checkpoint is of."""
    spec = known_spec(checkpoint)
    if not spec:
        checkpoint.backbone()  # asks for a prefix where that would tell
    if spec.get("_target_") not in BACKBONES:
        raise unknown_network(path, spec)
    check_spec(checkpoint, spec)
    return build_backbone(spec)


def check_spec(checkpoint: Checkpoint, spec: Mapping[str, Any]) -> None:
    """Compare what a file says of its network with its weights: it may ask for any memory.

    Raises:
        UserError: the network cannot be built so, or does not fit them.
    """
    try:
        arguments_of(spec)
        # Those of timm cannot be built without numbers; their sizes are timm's.
        if not spec["_target_"].endswith(".TimmBackbone"):
            with torch.device("meta"):
                find_backbone(checkpoint, build_backbone(spec))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"{checkpoint.path} cannot be of {describe(spec)}, as it says: {error}"
        ) from error


def unknown_network(path: str | Path, spec: Mapping[str, Any]) -> UserError:
    """What to say of a file whose network is none of this package's."""
    what = describe(spec) if spec else "a network that is not recognised"
    return UserError(
        f"{path} holds weights of {what}, none of this package's networks; build it and pass "
        "it as backbone=; in a command, name its class in conf/backbone/NAME.yaml and give "
        "--config-dir conf backbone=NAME"
    )


def _of_module(module: nn.Module) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    backbone = getattr(module, "query_encoder", module)
    assert isinstance(backbone, nn.Module)
    facts = _spec_facts(spec_of(backbone))
    if isinstance(head := getattr(module, "head", None), str):
        facts["head"] = head
    if isinstance(objectives := getattr(module, "objectives", None), nn.ModuleDict):
        facts["method"] = "+".join(objectives)
        facts["step"] = str(int(getattr(module, "global_step", 0)))
    return bare(backbone).state_dict(), facts


def _of_file(path: Path, prefix: str | None) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    checkpoint = read_checkpoint(path, prefix=prefix)
    return checkpoint.backbone(), facts_of(checkpoint)


def facts_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what an export says of the checkpoint that it is of."""
    facts = {MARK: __version__, **checkpoint.metadata}
    if "global_step" in facts:
        facts["step"] = facts.pop("global_step")
    if checkpoint.form == "vclr_lightning" and checkpoint.heads:
        facts["method"] = "+".join(checkpoint.heads)
    return facts | _spec_facts(known_spec(checkpoint))


def _spec_facts(spec: Mapping[str, Any]) -> dict[str, str]:
    return {"backbone": json.dumps(dict(spec))} if spec else {}
