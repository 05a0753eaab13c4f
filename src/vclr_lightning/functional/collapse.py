"""Signs of collapse that need no labels: ranks of features, their spread, alignment, uniformity."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.precision import full, without_autocast

_EPSILON = 1e-7  # added to each share of a spectrum, by both papers


def rankme(x: Tensor) -> Tensor:
    """Return RankMe of features ``(n, d)``: how many directions they use, 1 to ``min(n, d)``.

    Garrido et al., "RankMe: Assessing the downstream performance of pretrained self-supervised
    representations by their rank" (2023), Section 3.1: ``exp(-sum(p * log(p)))`` of the shares
    ``p = s / sum(s) + 1e-7`` of the singular values ``s`` of the rows as they are. Unlike
    :func:`~vclr_lightning.functional.embedding.effective_rank`, the mean is not removed.

    Example:
        >>> f"{rankme(torch.eye(4)):.3f} {rankme(torch.ones(4, 4)):.3f}"
        '4.000 1.000'
    """
    x = _wide(x)
    with without_autocast(x):
        gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    return _perplexity(torch.linalg.eigvalsh(gram).clamp_min(0).sqrt())


def lidar(x: Tensor, *, delta: float = 1e-4) -> Tensor:
    """Return LiDAR of features ``(n, q, d)`` of ``q`` views of each of ``n`` samples.

    Thilak et al., "LiDAR: sensing linear probing performance in joint embedding SSL architectures"
    (2024), Section 4: the effective rank of what tells samples apart, in units of what tells the
    views of one apart. It is RankMe's formula, of the eigenvalues of ``W^(-1/2) B W^(-1/2)``, with
    the covariance ``B`` of the samples' means, and that of the views around their sample's mean,
    ``W``, to which ``delta`` is added on the diagonal.

    Raises:
        UserError: there is one view only, or one sample.

    Example:
        >>> means = torch.eye(4)[:, None]
        >>> f"{lidar(torch.cat([means + 0.01, means - 0.01], dim=1)):.2f}"
        '3.00'
    """
    x = _wide(x)
    samples, views, dims = x.shape
    if samples < 2 or views < 2:
        raise UserError(
            f"LiDAR compares views of samples: it needs two samples and two views of each, "
            f"not {samples} and {views}"
        )
    means = x.mean(dim=1)
    within = (x - means[:, None]).flatten(0, 1)
    between = means - means.mean(dim=0)
    with without_autocast(x):
        covariance = within.T @ within / (samples * (views - 1))
        covariance.diagonal().add_(delta)
        root = torch.linalg.cholesky(covariance)
        whitened = torch.linalg.solve_triangular(root, between.T, upper=False)
        gram = whitened.T @ whitened if samples < dims else whitened @ whitened.T
    values = torch.linalg.eigvalsh(gram / (samples - 1)).clamp_min(0)
    return _perplexity(torch.cat([values, values.new_zeros(dims - len(values))]))


def dimension_spread(x: Tensor) -> Tensor:
    """Return each dimension's standard deviation in units of ``1 / sqrt(d)``.

    Of l2-normalised features: 1 where they cover the sphere evenly, 0 where they are all the same
    (Chen and He, "Exploring simple Siamese representation learning", 2021, Section 4.1).

    Shape: ``(n, d)`` to ``(d,)``

    Example:
        >>> dimension_spread(torch.tensor([[2.0, 0.0], [-1.0, 0.0]])).tolist()
        [1.4142135623730951, 0.0]
    """
    unit = normalize(_wide(x), dim=1)
    return unit.std(dim=0, correction=0) * math.sqrt(x.shape[1])


def alignment(x: Tensor) -> Tensor:
    """Return the mean squared distance of two views of a sample, after l2 normalisation.

    Wang and Isola, "Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere" (2020), Section 4.1; 0 when all views of a sample agree, 2 when
    they are unrelated. With more than two views, the mean over all pairs.

    Shape: ``(n, q, d)`` with ``q`` views, to ``()``

    Raises:
        UserError: there is one view only.

    Example:
        >>> alignment(torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])).item()
        2.0
    """
    views = x.shape[1]
    if views < 2:
        raise UserError("alignment compares views of a sample: it needs two of each")
    unit = normalize(_wide(x), dim=2)
    # Of unit vectors, the sum over pairs follows from the length of their sum.
    cosines = (unit.sum(dim=1).square().sum(dim=1) - views) / (views * (views - 1))
    return (2 - 2 * cosines).mean()


def uniformity(x: Tensor, *, sharpness: float = 2.0) -> Tensor:
    """Return how evenly l2-normalised features ``(n, d)`` lie on the sphere; less is more even.

    Wang and Isola (2020), Section 4.2: ``log(mean(exp(-sharpness * |x - y|^2)))`` over all pairs of
    different rows; 0 when all are the same.

    Raises:
        UserError: there is one row only.

    Example:
        >>> uniformity(torch.tensor([[1.0, 0.0], [-5.0, 0.0]])).item()
        -8.0
    """
    if len(x) < 2:
        raise UserError("uniformity compares samples: it needs two or more")
    distances = torch.pdist(normalize(_wide(x), dim=1)).square()
    return torch.logsumexp(-sharpness * distances, dim=0) - math.log(len(distances))


def _wide(x: Tensor) -> Tensor:
    """In double precision where the device has it: squares of small singular values count."""
    return full(x) if x.device.type == "mps" else x.double()


def _perplexity(spectrum: Tensor) -> Tensor:
    total = spectrum.sum().clamp_min(torch.finfo(spectrum.dtype).tiny)
    return torch.exp(torch.special.entr(spectrum / total + _EPSILON).sum())
