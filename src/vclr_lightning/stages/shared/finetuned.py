"""Load a finetuned classifier from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import plain_values
from vclr_lightning.core.saved import load_dict
from vclr_lightning.models import TorchvisionResNet, load_backbone
from vclr_lightning.models.checkpoints import Checkpoint, finetuned_options, read_checkpoint
from vclr_lightning.models.network_spec import known_spec
from vclr_lightning.modules.finetuning import FinetuneModule

_KEPT = ("head", "dropout", "frozen", "shift_divisions", "mean", "std", "batchnorm", "averaging")


def is_finetuned(path: str | Path) -> bool:
    """Whether a file holds a finetuned classifier: of a run, or of MMAction2."""
    return _classifier(read_checkpoint(path)).keys() == {"weight", "bias"}


def _classifier(checkpoint: Checkpoint) -> dict[str, Tensor]:
    own = {"vclr_lightning": "classifier.", "mmaction": checkpoint.classifiers.get("*", "")}
    return checkpoint.under(own[checkpoint.form]) if checkpoint.form in own else {}


def load_finetuned(path: str | Path, backbone: nn.Module | None = None) -> FinetuneModule:
    """Return the classifier of a finetuning run, or of MMAction2's TSN or TSM, in evaluation mode.

    Its optimizer, for further training, is SGD with the learning rate 0.01; build a
    :class:`~vclr_lightning.modules.finetune.FinetuneModule` for another.

    Args:
        path: ``last.ckpt`` or ``best.ckpt`` of the run; or a checkpoint of MMAction2.
        backbone: the network to fill; ``None`` builds the file's own.

    Raises:
        UserError: the file cannot be read, has no classifier, or is of another network.

    Example:
        ::

            classifier = load_finetuned("outputs/finetune/ucf101_finetune/last.ckpt")
            scores = classifier.scores(views)  # (B, k, S, C, T, H, W) uint8 to (B, classes)
            classifier.class_names[int(scores[0].argmax())]
    """
    if not is_finetuned(path):
        raise UserError(
            f"{path} holds no finetuned classifier; give last.ckpt or best.ckpt of a run of "
            "stage=finetune"
        )
    checkpoint = read_checkpoint(path)
    weights = _classifier(checkpoint)
    content = load_dict(Path(path), mapped=True)
    if checkpoint.form == "mmaction":
        known = _of_mmaction(content, path)
        options: Mapping[str, Any] = {"head": "tsn"}
        if backbone is None and (every := checkpoint.metadata.get("shift_every")):
            options, backbone = {"head": "tsm"}, _unshifted(checkpoint, every)
    else:
        metadata = content.get("metadata")
        known = plain_values(metadata, path) if isinstance(metadata, Mapping) else {}
        options = finetuned_options(known)
    network = load_backbone(path, backbone)
    if "head" not in options:
        raise UserError(
            f"{path} does not say whether its classifier is of TSN or TSM; build a FinetuneModule "
            "with the right head and load its state_dict"
        )
    try:
        module = FinetuneModule(
            backbone=network,
            num_classes=len(weights["weight"]),
            class_names=known.get("classes", ()),
            optimizer=partial(SGD, lr=0.01),
            **{key: options[key] for key in _KEPT if key in options},
        )
        module.classifier.load_state_dict(weights)
        for name in ("context", "norm"):
            if (part := getattr(module, name)) is not None:
                part.load_state_dict(checkpoint.under(f"{name}."))
    except (TypeError, RuntimeError) as error:
        raise UserError(f"the classifier in {path} is of another form: {error}") from error
    return module.eval()


def _of_mmaction(content: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the names of the classes in a checkpoint of MMAction2, as ``classes``."""
    meta = content.get("meta")
    plain = plain_values(meta, path) if isinstance(meta, Mapping) else {}
    described = plain.get("dataset_meta")
    names = described.get("classes") if isinstance(described, Mapping) else plain.get("CLASSES")
    return {"classes": [str(name) for name in names]} if isinstance(names, list) else {}


def _unshifted(checkpoint: Checkpoint, every: str) -> nn.Module:
    """Return the 2D network of a TSM, between whose frames the classifier shifts channels."""
    if every != "1":
        raise UserError(
            f"the classifier in {checkpoint.path} is of a TSM with shifts before every other block,"
            " which is none of this package's; its features can be used"
        )
    return TorchvisionResNet(name=str(known_spec(checkpoint)["name"]))
