"""Feature vectors: consensus over a tuple or views, standardization, and signs of collapse."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.precision import full, without_autocast

Averaging = Literal["logits", "probabilities"]
Center = Literal["none", "gallery", "each"]

_ROWS = 8192  # in double precision at a time


def average(features: Tensor) -> Tensor:
    """Average over the segments: the paper's consensus (Section 3.2), ``(B, S, F)`` to ``(B, F)``.

    Example:
        >>> average(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])).tolist()
        [[2.0, 4.0]]
    """
    return features.mean(1)


def maximum(features: Tensor) -> Tensor:
    """Take each channel's maximum over the segments, ``(B, S, F)`` to ``(B, F)``.

    Example:
        >>> maximum(torch.tensor([[[1.0, 7.0], [3.0, 6.0]]])).tolist()
        [[3.0, 7.0]]
    """
    return features.amax(1)


def average_views(logits: Tensor, *, averaging: Averaging = "logits") -> Tensor:
    """Average the class scores of a video's views, ``(B, views, classes)`` to ``(B, classes)``.

    Args:
        logits: of each view.
        averaging: ``"logits"`` or ``"probabilities"``, the softmax of each view.

    Raises:
        UserError: ``averaging`` is neither.

    Example:
        >>> logits = torch.tensor([[[0.0, 4.0], [1.0, 0.0]]])
        >>> average_views(logits)
        tensor([[0.5000, 2.0000]])
        >>> average_views(logits, averaging="probabilities").sum()
        tensor(1.)
    """
    if averaging not in ("logits", "probabilities"):
        raise UserError(f"averaging={averaging!r} of scores must be logits or probabilities")
    views = logits.softmax(dim=2) if averaging == "probabilities" else logits
    return views.mean(dim=1)


def spread(x: Tensor) -> Tensor:
    """Return the root mean square distance of unit vectors ``(n, D)`` from their mean.

    0 when all are the same vector; 1 when they cancel out, as uniformly spread ones do.

    Example:
        >>> spread(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item()
        0.0
        >>> spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item()
        1.0
    """
    x = full(x)
    return (x - x.mean(0)).square().sum(1).mean().sqrt()


def effective_rank(x: Tensor) -> Tensor:
    """Return the effective rank of vectors ``(n, D)``: exp of the entropy of the singular values.

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007), of the
    centred rows. 1 when all differ along one line, at most ``min(n - 1, D)``; 0 when all are equal.

    Example:
        >>> line = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
        >>> f"{effective_rank(line).item():.3f}"
        '1.000'
        >>> cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> f"{effective_rank(cross).item():.3f}"
        '2.000'
    """
    x = full(x)
    x = x - x.mean(0)
    with without_autocast(x):
        gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(x.dtype).tiny)
    rank = torch.exp(torch.special.entr(share).sum())
    return torch.where(singular.sum() > 0, rank, torch.zeros_like(rank))


def standardized(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale each feature to mean 0 and variance 1 over ``train``; constant ones to 0.

    Computed in double precision, some rows at a time; returned in the dtype of each.

    Shape: - train: ``(N, F)``; test: ``(M, F)``

    Example:
        >>> standardized(torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0]]))[1]
        tensor([[2.]])
    """
    parts = torch.split(train, _ROWS)
    mean = _mean(train)
    squares = [(part.double() - mean).square().sum(dim=0) for part in parts]
    deviation = (torch.stack(squares).sum(dim=0) / len(train)).sqrt()
    # Rounding leaves a constant feature a tiny deviation, by which it must not be divided.
    scale = torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, 0.0)

    def scaled(x: Tensor) -> Tensor:
        found = torch.empty_like(x)
        for into, part in zip(torch.split(found, _ROWS), torch.split(x, _ROWS), strict=True):
            into.copy_((part.double() - mean) * scale)
        return found

    return scaled(train), scaled(test)


def centred(queries: Tensor, gallery: Tensor, *, center: Center) -> tuple[Tensor, Tensor]:
    """Subtract a mean from the features of a retrieval, before cosines are compared.

    Args:
        queries, gallery: features.
        center: ``"none"``; ``"gallery"``: the gallery's mean from both sets; ``"each"``: from each
            set its own mean, as CoCLR (Han et al. 2020) does.

    Computed in double precision, some rows at a time; returned in the dtype of each.

    Shape: - queries: ``(Q, F)``; gallery: ``(G, F)``

    Raises:
        UserError: there is no such way.

    Example:
        >>> queries, gallery = torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [8.0]])
        >>> [x[:, 0].tolist() for x in centred(queries, gallery, center="each")]
        [[-1.0, 1.0], [-2.0, 2.0]]
        >>> [x[:, 0].tolist() for x in centred(queries, gallery, center="gallery")]
        [[-5.0, -3.0], [-2.0, 2.0]]
    """
    if center not in get_args(Center):
        raise UserError(f"center={center!r} of retrieval must be none, gallery or each")
    if center == "none":
        return queries, gallery
    mean = _mean(gallery)
    own = mean if center == "gallery" else _mean(queries)

    def less(x: Tensor, mean: Tensor) -> Tensor:
        return torch.cat([(part.double() - mean).to(x.dtype) for part in torch.split(x, _ROWS)])

    return less(queries, own), less(gallery, mean)


def _mean(x: Tensor) -> Tensor:
    """Return the mean of rows ``(N, F)`` in double precision."""
    parts = [part.double().sum(dim=0) for part in torch.split(x, _ROWS)]
    return torch.stack(parts).sum(dim=0) / len(x)


def principal_components(x: Tensor, k: int = 2) -> tuple[Tensor, Tensor]:
    """Return the first ``k`` principal components of rows, and their shares of the variance.

    Each component's sign is such that the feature with the largest weight counts positively, so
    equal rows give equal pictures. Components that there are not are zeros.

    Shape: ``(n, d)`` to ``(n, k)`` and ``(k,)``

    Example:
        >>> points, shares = principal_components(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
        >>> points.tolist(), shares.tolist()
        ([[-2.0, 0.0], [2.0, 0.0]], [1.0, 0.0])
    """
    x = full(x)
    x = x - x.mean(0)
    with without_autocast(x):
        _, singular, directions = torch.linalg.svd(x, full_matrices=False)
        variance = singular.square()
        kept = min(k, len(singular))
        directions = directions[:kept]
        largest = directions.abs().argmax(dim=1, keepdim=True)
        points = x @ (directions * directions.gather(1, largest).sign()).T
    shares = variance[:kept] / variance.sum().clamp_min(torch.finfo(x.dtype).tiny)
    missing = k - kept
    return (
        torch.nn.functional.pad(points, (0, missing)),
        torch.nn.functional.pad(shares, (0, missing)),
    )


def whitened(train: Tensor, test: Tensor, *, shrink: float = 0.1) -> tuple[Tensor, Tensor]:
    """Turn features onto the principal axes of ``train``, and scale each axis to like variance.

    Where few directions hold most of the variance, cosines compare these alone; whitened, all count
    (Jégou and Chum 2012, of retrieval). Axis i, of variance l_i, is divided by
    sqrt((1 - shrink) l_i + shrink l), with l the mean variance, so that directions that few videos
    determine are not blown up; those that ``train`` does not have are left out.

    Computed in double precision, some rows at a time; returned in the dtype of each.

    Args:
        train: what mean and axes are taken from.
        test: others.
        shrink: 0: variance 1 along each axis; 1: a rotation.

    Shape: - train: ``(N, F)``; test: ``(M, F)``; returns ``(N, R)`` and ``(M, R)``, R at most F

    Raises:
        UserError: ``shrink`` is not in 0 to 1.

    Example:
        >>> train = torch.tensor([[8.0, 1.0], [-8.0, 1.0], [8.0, -1.0], [-8.0, -1.0]])
        >>> whitened(train, train, shrink=0.0)[0].abs().tolist()
        [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    if not 0 <= shrink <= 1:
        raise UserError(f"shrink={shrink} of whitening must be between 0 and 1")
    mean = _mean(train)
    centred_parts = (part.double() - mean for part in torch.split(train, _ROWS))
    products = [part.T @ part for part in centred_parts]
    variance, axes = torch.linalg.eigh(torch.stack(products).sum(dim=0) / len(train))
    kept = variance > variance[-1] * 1e-9
    variance, axes = variance[kept], axes[:, kept]
    scale = ((1 - shrink) * variance + shrink * variance.mean()).rsqrt()

    def turned(x: Tensor) -> Tensor:
        parts = torch.split(x, _ROWS)
        return torch.cat([(((p.double() - mean) @ axes) * scale).to(x.dtype) for p in parts])

    return turned(train), turned(test)
