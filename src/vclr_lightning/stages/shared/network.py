"""Pretrained networks: weights from a file, in the network that they belong to."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import pixel_statistics
from vclr_lightning.models import TorchvisionResNet, load_backbone, random_backbone
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.models.export import check_spec
from vclr_lightning.models.match_weights import find_backbone
from vclr_lightning.models.network_identity import unknown_network
from vclr_lightning.models.network_spec import NODE, known_spec, say_recognised, weight_shapes
from vclr_lightning.models.trusted_networks import trusted_spec
from vclr_lightning.models.weights import group_names
from vclr_lightning.stages.shared.finetuned import is_finetuned, load_finetuned

logger = logging.getLogger(__name__)

_RESNET = "vclr_lightning.models.TorchvisionResNet"
_USUAL = {"name": "resnet50", "small_stem": False, "zero_init_residual": False}

CLASSIFIER = "classifier"
"""Layer name of a finetuned network that selects its class scores."""


class BackboneClassifier(nn.Module):
    """A network and a linear classifier of its features: ``(N, ...)`` to ``(N, classes)``."""

    def __init__(self, net: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.net, self.classifier = net, classifier
        self.clip_dims: int = getattr(net, "clip_dims", 2)
        self.pixel_mean, self.pixel_std = pixel_statistics(net)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores of each picture or clip, before any softmax."""
        scores: Tensor = self.classifier(self.net(pixels))
        return scores


def pretrained_network(
    weights: str | Path,
    backbone: nn.Module | None = None,
    *,
    layer: str | None = None,
    untrained: bool = False,
    prefix: str | None = None,
) -> nn.Module:
    """Return a network with the weights of a file, in evaluation mode, and log what was loaded.

    Args:
        weights: a file of any form that
            :func:`~vclr_lightning.models.checkpoints.read_checkpoint` recognises; ``"none"`` for
            the present weights of ``backbone``.
        backbone: the network; ``None`` for the file's own.
        layer: the layer whose output is used; weights of other layers may be missing.
            ``classifier`` of a finetuned network gives its scores.
        untrained: return the network with random weights instead, as a baseline.
        prefix: prefix of the network's names in a file of another form.

    Raises:
        UserError: the file cannot be read or does not fit, or no network is given.
    """
    if str(weights).lower() == "none":
        if backbone is None:
            raise UserError(
                "ckpt=none is a network without training, which has to be named: give "
                "backbone=resnet50 or another"
            )
        logger.info("weights: none, %s is untrained", type(unwrap(backbone)).__name__)
        return backbone.eval()
    if untrained:
        logger.info("weights: random, in the network of %s", weights)
        if backbone is not None:
            return backbone.eval()
        return random_backbone(weights, prefix=prefix, seed=torch.initial_seed())  # the run's seed
    if layer == CLASSIFIER and is_finetuned(weights):
        return _scored(weights, backbone)
    network = load_backbone(weights, backbone, prefix=prefix)
    checkpoint = read_checkpoint(weights, prefix=prefix)
    net = unwrap(network)
    found = find_backbone(checkpoint, net)
    missing = tuple(name for name in weight_shapes(net.state_dict()) if name not in found)
    if missing and (layer is None or any(name.startswith(f"{layer}.") for name in missing)):
        raise UserError(
            f"{weights} has no {', '.join(group_names(missing))} of this {type(net).__name__}, "
            "whose features would be those of random weights; give a network without it, or "
            "features.layer=NAME of a layer before it"
        )
    if checkpoint.metadata.get("head") == "tsm":
        logger.warning(
            "%s was trained by TSM, with channels shifted between frames; frames are encoded one "
            "by one here, without the shift",
            weights,
        )
    left = len(checkpoint.tensors) - len(found)
    logger.info(
        "weights: %s, %d tensors of %s loaded%s, %d left in the file",
        *(weights, len(found), type(net).__name__),
        *(f", missing {', '.join(group_names(missing))}" if missing else "", left),
    )
    return network


def _scored(weights: str | Path, backbone: nn.Module | None) -> BackboneClassifier:
    classifier = load_finetuned(weights, backbone)
    if classifier.head != "tsn":
        raise UserError(
            f"{weights} is a {classifier.head.upper()} classifier, which has no scores of single "
            "frames; finetune with module.head=tsn, or leave features.layer out"
        )
    logger.info("weights: %s, scores of %d classes", weights, classifier.classifier.out_features)
    layers = [classifier.norm, classifier.classifier]
    last = nn.Sequential(*(layer for layer in layers if layer is not None))
    return BackboneClassifier(classifier.query_encoder, last).eval()


def network_of(
    weights: str | Path | None = None,
    *,
    name: str = "resnet50",
    small_stem: bool = False,
    zero_init_residual: bool = False,
) -> nn.Module:
    """Return the network of a file's weights with random weights, to train.

    Args:
        weights: a file as in :func:`pretrained_network`; ``None`` or ``"none"`` for none.
        name, small_stem, zero_init_residual: of the ResNet where there is no file, or where the
            file does not describe its network. Values other than the defaults win over the file.

    Raises:
        UserError: the file cannot be read, or its network is of none of this package's classes.
    """
    resnet = {"name": name, "small_stem": small_stem, "zero_init_residual": zero_init_residual}
    if weights is None or not _stated(weights, resnet):
        return TorchvisionResNet(**resnet)  # type: ignore[arg-type]
    return random_backbone(weights, seed=torch.initial_seed()).train()  # the run's seed


def network_spec(weights: str | Path | None = None, **resnet: Any) -> dict[str, Any]:
    """Return how to build the network of :func:`network_of`, as plain values."""
    stated = _stated(weights, {**_USUAL, **resnet})
    if not stated:
        return {"_target_": _RESNET, **_USUAL, **resnet}
    spec = trusted_spec(stated)
    if spec is None:
        raise unknown_network(str(weights), stated)
    checkpoint = read_checkpoint(str(weights))
    say_recognised(checkpoint, spec)
    check_spec(checkpoint, spec)
    return spec


def network_from_node(node: str) -> nn.Module:
    """Return the network of a node of the configuration, which it remembers as its spec.

    Args:
        node: as JSON, with ``_target_`` and arguments.

    Raises:
        UserError: it gives no network.
    """
    spec = json.loads(node)
    network = instantiate({"_convert_": "all", **spec})  # plain lists and dictionaries
    if not isinstance(network, nn.Module):
        raise UserError(
            f"backbone._target_={spec['_target_']} gives a {type(network).__name__}, no nn.Module"
        )
    vars(network)[NODE] = spec
    return network


def _stated(weights: str | Path | None, resnet: Mapping[str, Any]) -> dict[str, Any]:
    """The network spec of a file; empty where the ResNet's arguments win."""
    if weights is None or str(weights).lower() == "none" or resnet != _USUAL:
        return {}
    return known_spec(read_checkpoint(weights))


@torch.no_grad()
def weights_digest(backbone: nn.Module) -> str:
    """Return a hash of the names, shapes and values of a network's tensors.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> net = TinyBackbone(width=4)
        >>> before = weights_digest(net)
        >>> _ = net.stem.weight.data.zero_()
        >>> weights_digest(net) == before
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(unwrap(backbone).state_dict().items()):
        if name.endswith("num_batches_tracked"):  # a counter, on which features do not depend
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
