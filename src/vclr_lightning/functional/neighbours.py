"""Exact nearest neighbours by cosine similarity, in blocks of queries and gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.row_norms import divided, divisors
from vclr_lightning.functional.topk import decode_keys, merge_top, no_keys

MARGIN = 16  # neighbours beyond k whose order is settled in double precision, too
NEAR = 1e-5  # similarities this close are compared in double precision; float32 errs by less
_NUMBERS = 1 << 17  # of double precision, multiplied at a time
_TINY = 1e-300


def cosine_neighbours(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    chunk: int = 1024,
    gallery_chunk: int = 1024,
    device: torch.device | str | None = None,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` nearest gallery rows of each query by cosine similarity.

    The gallery is read once, in blocks, so it may be mapped into memory, of any size and of half
    precision. Beside the result, no more than ``chunk * gallery_chunk`` similarities are held,
    and one block of the gallery where it is not in float32 already.

    Rows are compared in float32, and those that come out close to each other once more in double
    precision; rows that are equally similar come by their position. So neither the blocks nor the
    order of the gallery decide anything, unless more than 16 rows beyond the k-th are as near as
    it.

    Args:
        queries: features, any scale; a row of zeros is at similarity 0 from everything.
        gallery: features, any scale.
        k: number of neighbours; at most ``G`` come back.
        query_groups, gallery_groups: where given, rows of the query's own group are no neighbours:
            with groups of their own, queries that are also the gallery do not find themselves.
        chunk: queries compared at a time.
        gallery_chunk: gallery rows compared at a time.
        device: where to compute; by default where the queries are.
        progress: given the blocks of the gallery, yields them, and may show how far it is.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; groups: ``(Q,)`` and ``(G,)``
        - returns: similarities ``(Q, min(k, G))`` float32, descending, and positions of the same
          shape; minus infinity and -1 where there are no more neighbours.

    Raises:
        UserError: features are not finite, or the gallery is empty.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        >>> similarity, position = cosine_neighbours(torch.tensor([[0.0, 5.0]]), gallery, k=2)
        >>> position.tolist()
        [[1, 2]]
    """
    queries, gallery = queries.detach(), gallery.detach()
    if not len(gallery):
        raise UserError("there is nothing to look among: the gallery is empty")
    where = torch.device(queries.device if device is None else device)
    k = min(k, len(gallery))
    parts = [divisors(part, "query") for part in torch.split(queries, chunk)]
    query_divisor, query_scale = (torch.cat(column) for column in zip(*parts, strict=True))
    best = no_keys(len(queries), min(k + MARGIN, len(gallery)), device=where)
    with full_precision():
        starts = range(0, len(gallery), gallery_chunk)
        for rows in progress([slice(start, start + gallery_chunk) for start in starts]):
            block = gallery[rows].to(where)
            divisor, scale = divisors(block, "gallery")
            block = divided(block, divisor)
            own = None if gallery_groups is None else gallery_groups[rows].to(where)
            for start in range(0, len(queries), chunk):
                some = slice(start, start + chunk)
                part = divided(queries[some].to(where), query_divisor[some].to(where))
                similarity = part @ block.T
                similarity.mul_(scale)  # a query's own norm does not change its order
                if query_groups is not None and own is not None:
                    groups = query_groups[some].to(where)
                    similarity.masked_fill_(groups[:, None] == own, -torch.inf)
                best[some] = merge_top(best[some], similarity, rows.start)
    found = []
    for part, keys, scale in zip(
        *(torch.split(whole, chunk) for whole in (queries, best, query_scale)), strict=True
    ):
        similarity, position = (x.to(queries.device) for x in decode_keys(keys))
        found.append(settle(part, gallery, similarity * scale[:, None], position, k))
    similarities, positions = zip(*found, strict=True)
    return torch.cat(similarities), torch.cat(positions)


def settle(
    queries: Tensor, gallery: Tensor, similarity: Tensor, position: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the first ``k`` neighbours after putting near ties right.

    Neighbours whose similarities differ by less than float32 can tell are compared in double
    precision; what is equal then (to 12 decimals) comes by position.

    Args:
        queries, gallery: features, any scale.
        similarity: of candidates, descending up to an error of 5e-6; minus infinity for none.
        position: of candidates in the gallery; -1 for none.
        k: how many to return.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; similarity, position: ``(Q, K)``, K >= k
        - returns: similarity and position ``(Q, k)``
    """
    close = similarity[:, :-1] - similarity[:, 1:] <= NEAR  # false between two that are none
    unsettled = close.any(dim=1).nonzero()[:, 0]  # few rows, as a rule
    values, places = similarity[:, :k].clamp(-1, 1), position[:, :k]
    if len(unsettled):
        first, second = _settled(
            queries[unsettled.to(queries.device)],
            gallery,
            similarity[unsettled],
            position[unsettled],
            close[unsettled],
        )
        values, places = values.clone(), places.clone()
        values[unsettled], places[unsettled] = first[:, :k], second[:, :k]
    return values.masked_fill(places < 0, -torch.inf), places


def _settled(
    queries: Tensor, gallery: Tensor, similarity: Tensor, position: Tensor, close: Tensor
) -> tuple[Tensor, Tensor]:
    """Order all candidates, those next to a close one by double precision."""
    none = close.new_zeros(len(close), 1)
    near = torch.cat([close, none], dim=1) | torch.cat([none, close], dim=1)
    exact = similarity.double()
    for pairs in torch.split(near.nonzero(), max(1, _NUMBERS // queries.shape[1])):
        rows, columns = pairs.unbind(1)
        exact[rows, columns] = _cosines(queries, gallery, rows, position[rows, columns])
    by_position = position.argsort(dim=1)
    order = exact.gather(1, by_position).argsort(dim=1, descending=True, stable=True)
    order = by_position.gather(1, order)
    return exact.gather(1, order).clamp(-1, 1).float(), position.gather(1, order)


def exact_similarities(queries: Tensor, gallery: Tensor, position: Tensor) -> Tensor:
    """Return the cosine similarity of each query and given gallery rows, in double precision.

    Args:
        queries, gallery: features, any scale.
        position: rows of the gallery; -1 for none, whose similarity is minus infinity.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; position: ``(Q, K)``
        - returns: ``(Q, K)`` float64

    Example:
        >>> gallery = torch.tensor([[0.0, 2.0], [3.0, 3.0]])
        >>> exact_similarities(torch.tensor([[0.0, 5.0]]), gallery, torch.tensor([[0, 1, -1]]))
        tensor([[1.0000, 0.7071,   -inf]], dtype=torch.float64)
    """
    found = torch.full(position.shape, -torch.inf, dtype=torch.float64, device=position.device)
    pairs = (position >= 0).nonzero()
    for some in torch.split(pairs, max(1, _NUMBERS // queries.shape[1])):
        rows, columns = some.unbind(1)
        found[rows, columns] = _cosines(queries, gallery, rows, position[rows, columns])
    return found


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices as such, whatever a training run has allowed.

    Example:
        >>> with full_precision():
        ...     torch.get_float32_matmul_precision()
        'highest'
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _cosines(queries: Tensor, gallery: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    """Cosine similarity of pairs, to 12 decimals: ``(P,)`` and ``(P,)`` to ``(P,)`` float64."""
    first = queries[rows].double()
    second = gallery[positions.to(gallery.device)].double().to(first.device)
    if torch.float64 in (queries.dtype, gallery.dtype):  # squares of others are within its range
        first, second = (
            x / x.abs().amax(dim=1, keepdim=True).clamp(min=_TINY) for x in (first, second)
        )
    product = (first * second).sum(dim=1)
    norms = first.norm(dim=1) * second.norm(dim=1)
    cosine: Tensor = product / norms.clamp(min=_TINY)
    return cosine.round(decimals=12)
