"""The heads of a video classifier: their options, and their layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import relu

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.settings import check_number
from vclr_lightning.functional.dense_prediction import read_blocks
from vclr_lightning.functional.embedding import Averaging
from vclr_lightning.objectives.conv_gru import ConvGRUCell

Head = Literal["tsn", "tsm", "gru"]
_INIT_STD: Mapping[Head, float] = {"tsn": 0.01, "tsm": 0.001}


def check_head(
    head: Head,
    *,
    averaging: Averaging | None = None,
    groups: Mapping[str, Any] | None = None,
    dropout: float = 0.0,
    batch_flip_p: float = 0.0,
) -> Averaging:
    """Return what is averaged over a video's views: ``averaging``, or the head's own way.

    Raises:
        UserError: one of them is unknown or out of range, or the head has parameter groups of its
            own.

    Example:
        >>> check_head("tsn")
        'logits'
    """
    if head not in get_args(Head):
        raise UserError(f"head={head!r} is unknown; take tsn, tsm or gru")
    check_number("dropout", dropout, least=0, below=1)
    if not 0 <= batch_flip_p <= 1:
        raise UserError(f"batch_flip_p={batch_flip_p} must be from 0 to 1")
    if averaging not in (None, *get_args(Averaging)):
        raise UserError(f"averaging={averaging!r} must be logits or probabilities")
    if head == "tsm" and groups:
        raise UserError("head='tsm' has parameter groups of its own; leave optim.groups out")
    return averaging or ("logits" if head == "tsn" else "probabilities")


def linear_classifier(
    num_features: int, num_classes: int, *, head: Head, init_std: float | None = None
) -> nn.Linear:
    """Return the classifier of a head, with its initial weights.

    Args:
        num_features: of its input.
        num_classes: of its output.
        head: whose it is.
        init_std: standard deviation of the weights; ``None``: 0.01 for ``"tsn"``, 0.001 for
            ``"tsm"``, and orthogonal weights for ``"gru"``.

    Raises:
        UserError: there are fewer than two classes.

    Example:
        >>> linear_classifier(8, 5, head="gru").bias.tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if num_classes < 2:
        raise UserError(f"num_classes={num_classes} must be 2 or more for a classifier")
    layer = nn.Linear(num_features, num_classes)
    if head == "gru" and init_std is None:
        nn.init.orthogonal_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=_INIT_STD[head] if init_std is None else init_std)
    nn.init.zeros_(layer.bias)
    return layer


class BlockContext(nn.Module):
    """The context of DPC's classifier: a ConvGRU over all blocks of a video.

    Han, Xie and Zisserman, "Video representation learning by dense predictive coding", ICCV
    Workshops 2019, and the authors' classifier. Maps pass a ReLU and are averaged over time (DPC
    itself averages first); the GRU's last state is averaged over its positions.

    Args:
        num_features: channels of the maps.
        dropout: of the GRU's state, at every step of training.

    Shape: maps ``(B, n, F, t, h, w)`` or ``(B, n, F, h, w)`` to ``(B, F)``.

    Example:
        >>> import torch
        >>> BlockContext(num_features=8)(torch.zeros(2, 3, 8, 2, 4, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, *, num_features: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.gru = ConvGRUCell(num_features=num_features, dropout=dropout)

    def forward(self, maps: Tensor) -> Tensor:
        blocks = relu(maps)
        blocks = blocks.mean(dim=3) if blocks.ndim == 6 else blocks
        return read_blocks(blocks, self.gru).flatten(2).mean(dim=2)
