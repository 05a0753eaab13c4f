"""Retrieval of the nearest training videos of every test video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.retrieval_result import Retrieval
from vclr_lightning.functional.embedding import Center, centred, standardized, whitened
from vclr_lightning.functional.faiss_search import faiss_neighbours, load_faiss
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours, exact_similarities
from vclr_lightning.functional.retrieval import KS, chance_recall, largest

if TYPE_CHECKING:
    from vclr_lightning.evaluation.features import FeatureSet
    from vclr_lightning.evaluation.store import FeatureStore

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "exact": cosine_neighbours,
    "faiss": faiss_neighbours,
}


def search(
    train: FeatureSet | FeatureStore,
    test: FeatureSet | FeatureStore,
    *,
    ks: Sequence[int] = KS,
    backend: str = "exact",
    leave_group_out: bool = False,
    center: Center = "none",
    standardize: bool = False,
    whiten: bool = False,
    listed: int = 0,
    show: bool = False,
    **options: Any,
) -> Retrieval:
    """Find the nearest training videos of every test video (Section 4.1 of the paper).

    Args:
        train: the gallery; videos without a label are left out.
        test: the queries; likewise.
        ks: numbers of neighbours; those beyond the size of the gallery are left out, except for
            the smallest.
        backend: ``"exact"``, or ``"faiss"``, which needs that package and finds the same.
        leave_group_out: exclude videos of the query's own group, for queries that are also the
            gallery.
        center: see :func:`~vclr_lightning.functional.embedding.centred`.
        standardize: then shift and scale each feature to mean 0 and variance 1 over the gallery.
        whiten: then whiten; see :func:`~vclr_lightning.functional.embedding.whitened`.
        listed: number of nearest whose similarity is computed in double precision, so that it is
            bit-equal with every backend.
        show: show a progress bar.
        options: of the backend, such as ``chunk``.

    Raises:
        UserError: no video has a label, features are not finite or do not fit together, or there
            is no such backend.

    Example:
        >>> import torch
        >>> from vclr_lightning.evaluation import FeatureSet
        >>> x = torch.tensor([[1.0, 0.0], [0.2, 1.0], [0.0, 1.0], [1.0, 0.9]])
        >>> label, number = torch.tensor([0, 1, 1, 0]), torch.arange(4)
        >>> features = FeatureSet(x, x[:, None], label, number, number, number)
        >>> search(features, features, ks=(1, 2), leave_group_out=True).recall
        {1: 0.75, 2: 1.0}
    """
    check_options(ks=ks, backend=backend, leave_group_out=leave_group_out)
    gallery, gallery_label, gallery_group = _labelled(train, "training")
    queries, query_label, query_group = _labelled(test, "test")
    if gallery.shape[1] != queries.shape[1]:
        raise UserError(
            f"the training videos have {gallery.shape[1]} features each and the test videos "
            f"{queries.shape[1]}; extract both with the same weights and layer"
        )
    queries, gallery = centred(queries, gallery, center=center)
    if standardize:
        gallery, queries = standardized(gallery, queries)
    if whiten:
        gallery, queries = whitened(gallery, queries)
    groups: dict[str, Tensor] = {}
    if leave_group_out:
        groups = {"query_groups": query_group, "gallery_groups": gallery_group}
    counted = tuple(sorted({k for k in ks if k == min(ks) or k <= len(gallery)}))
    progress = partial(track, description="neighbours", show=show)
    similarity, position = BACKENDS[backend](
        queries, gallery, max(counted), progress=progress, **groups, **options
    )
    if listed:
        similarity[:, :listed] = exact_similarities(queries, gallery, position[:, :listed])
    return Retrieval(
        similarity=similarity,
        position=position,
        query_label=query_label,
        gallery_label=gallery_label,
        ks=counted,
        chance=chance_recall(query_label, gallery_label, ks=counted, **groups),
    )


def check_options(*, ks: Sequence[int], backend: str, leave_group_out: bool) -> None:
    """Raise a :class:`UserError` for options that :func:`search` cannot handle."""
    largest(ks)
    if backend not in BACKENDS:
        raise UserError(f"backend={backend} must be {' or '.join(BACKENDS)}")
    if backend == "faiss":
        load_faiss()
        if leave_group_out:
            raise UserError("backend=faiss cannot leave groups out; take backend=exact")


def _labelled(features: FeatureSet | FeatureStore, what: str) -> tuple[Tensor, Tensor, Tensor]:
    keep = features.label >= 0
    if not bool(keep.any()):
        raise UserError(
            f"none of the {what} videos has a label, and retrieval needs them; index a folder with "
            "a subfolder per class, or list files with labels"
        )
    if bool(keep.all()):  # not copied: they may be memory-mapped
        return features.mean, features.label, features.group_id
    return features.mean[keep], features.label[keep], features.group_id[keep]
