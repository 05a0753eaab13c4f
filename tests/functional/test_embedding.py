"""Spread and effective rank against NumPy and known cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.embedding import (
    average,
    effective_rank,
    maximum,
    principal_components,
    spread,
    whitened,
)


@pytest.mark.parametrize("shape", [(50, 8), (6, 20)])
def test_against_numpy(shape: tuple[int, int]) -> None:
    x = normalize(torch.randn(*shape, dtype=torch.float64), dim=1)
    centred = x.numpy() - x.numpy().mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    share = singular[singular > 1e-12] / singular.sum()
    entropy = -(share * np.log(share)).sum()
    assert effective_rank(x).item() == pytest.approx(np.exp(entropy), rel=1e-4)
    assert spread(x).item() == pytest.approx(np.sqrt((centred**2).sum(1).mean()))


def test_a_collapse_shows() -> None:
    same = torch.ones(10, 4)
    assert spread(same).item() == 0
    assert effective_rank(same).item() == 0
    wide = normalize(torch.randn(4000, 16), dim=1)
    assert spread(wide).item() > 0.99
    assert effective_rank(wide).item() > 15.8


def test_consensus() -> None:
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(average(x), x.sum(1) / 3)
    assert torch.equal(maximum(x), x.max(1).values)


def test_principal_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0) + 3
    points, shares = principal_components(x.double(), 3)
    expected = PCA(n_components=3, svd_solver="full").fit(x.numpy().astype(float))
    assert shares.tolist() == pytest.approx(list(expected.explained_variance_ratio_))
    other = expected.transform(x.numpy().astype(float))
    signs = (other * points.numpy()).sum(axis=0)
    assert points.numpy() == pytest.approx(other * np.sign(signs), abs=1e-8)
    torch.testing.assert_close(principal_components(x[:, :2], 3)[0][:, 2], torch.zeros(30))


def test_whitening_is_sklearn_s_and_shrinks() -> None:
    """In full rank; and where videos are fewer than features, in the directions they have."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    scales = np.array([50.0, 5.0, 1.0, 0.1])
    known, unseen = (rng.normal(size=(n, 4)) * scales + 7 for n in (200, 9))
    ours = whitened(torch.from_numpy(known), torch.from_numpy(unseen), shrink=0.0)
    pca = PCA(whiten=True, svd_solver="full").fit(known)
    for mine, theirs in zip(ours, (pca.transform(known), pca.transform(unseen)), strict=True):
        theirs *= np.sqrt(200 / 199)  # theirs divides by n - 1
        gram = mine.numpy() @ mine.numpy().T  # cosines do not see signs and order of the axes
        assert np.allclose(gram, theirs @ theirs.T)
    few = torch.from_numpy(known[:3])
    assert whitened(few, torch.from_numpy(unseen))[1].shape == (9, 2)
    turned = whitened(torch.from_numpy(known), torch.from_numpy(unseen), shrink=1.0)[1]
    distance = torch.pdist(torch.from_numpy(unseen)) / torch.pdist(turned)
    assert torch.allclose(distance, distance[:1])
    with pytest.raises(UserError, match="shrink=2"):
        whitened(few, few, shrink=2)
