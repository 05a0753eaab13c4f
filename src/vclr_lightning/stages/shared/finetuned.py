"""Load a finetuned classifier from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import SGD

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import plain_values
from vclr_lightning.core.saved import load_dict
from vclr_lightning.models import load_backbone
from vclr_lightning.models.checkpoints import finetuned_options, read_checkpoint
from vclr_lightning.modules.finetuning import FinetuneModule

_KEPT = ("head", "dropout", "frozen", "shift_divisions", "mean", "std")


def is_finetuned(path: str | Path) -> bool:
    """Whether a file is the checkpoint of a finetuning run, with its classifier."""
    checkpoint = read_checkpoint(path)
    weights = checkpoint.under("classifier.")
    return checkpoint.form == "vclr_lightning" and weights.keys() == {"weight", "bias"}


def load_finetuned(path: str | Path, backbone: nn.Module | None = None) -> FinetuneModule:
    """Return the classifier of a finetuning run, in evaluation mode.

    Its optimizer, for further training, is SGD with the learning rate 0.01; build a
    :class:`~vclr_lightning.modules.finetune.FinetuneModule` for another.

    Args:
        path: ``last.ckpt`` or ``best.ckpt`` of the run.
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
    weights = read_checkpoint(path).under("classifier.")
    network = load_backbone(path, backbone)
    metadata = load_dict(Path(path), mapped=True).get("metadata")
    known = plain_values(metadata, path) if isinstance(metadata, Mapping) else {}
    options = finetuned_options(known)
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
    except (TypeError, RuntimeError) as error:
        raise UserError(f"the classifier in {path} is of another form: {error}") from error
    return module.eval()
