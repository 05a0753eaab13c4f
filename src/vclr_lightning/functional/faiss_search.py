"""The same neighbours by FAISS, which is an optional dependency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.nearest_neighbours import MARGIN, divided, divisors, resolve_ties

if TYPE_CHECKING:
    from types import ModuleType


def faiss_neighbours(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    index: Any = None,
    chunk: int = 512,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` nearest gallery rows of each query by cosine similarity, with FAISS.

    With the exact index that is created by default, the result is that of
    :func:`~vclr_lightning.functional.nearest_neighbours.cosine_neighbours`, whose shapes these are.
    The index keeps a copy of the gallery in float32.

    Args:
        queries: features, any scale.
        gallery: features, any scale.
        k: number of neighbours; at most ``G`` are returned.
        index: an empty, trained FAISS index of inner products to use instead, such as one on a
            GPU; the gallery is added to it. An approximate one may miss neighbours.
        chunk: rows searched, or added, at a time.
        progress: wraps the sequence of query blocks, such as a progress bar.

    Raises:
        UserError: FAISS is not installed, features are not finite, or the gallery is empty.
    """
    if not len(gallery):
        raise UserError("the gallery is empty: there is nothing to search")
    if index is None:
        index = load_faiss().IndexFlatIP(gallery.shape[1])
    for part in torch.split(gallery, chunk):
        index.add(_unit(part, "gallery"))
    wide, found = min(k + MARGIN, len(gallery)), []
    for part in progress(torch.split(queries, chunk)):
        similarity, position = map(torch.from_numpy, index.search(_unit(part, "query"), wide))
        similarity = similarity.masked_fill(position < 0, -torch.inf)
        found.append(resolve_ties(part.cpu(), gallery, similarity, position, min(k, len(gallery))))
    first, second = (torch.cat(parts) for parts in zip(*found, strict=True))
    return first.to(queries.device), second.to(queries.device)


def _unit(rows: Tensor, what: str) -> Any:
    cpu = rows.detach().cpu()
    return normalize(divided(cpu, divisors(cpu, what)[0]), dim=1).contiguous().numpy()


def load_faiss() -> ModuleType:
    """Import FAISS.

    Raises:
        UserError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "FAISS is not installed; run pip install faiss-cpu, or remove backend=faiss: the exact "
            "search finds the same neighbours without it"
        ) from error
    module: ModuleType = faiss
    return module
