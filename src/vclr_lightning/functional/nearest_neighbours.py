"""Exact nearest neighbours by cosine similarity, in blocks of queries and gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.topk import decode_keys, merge_top, no_keys

MARGIN = 16  # candidates beyond k that take part in the comparison in double precision
_NEAR = 1e-5  # similarities this close are compared in double precision; float32 errs by less
_NUMBERS = 1 << 17  # of double precision, multiplied at a time
_TINY = 1e-300
_SAFE = 1e-12, 1e12  # norms whose squares and products float32 holds without loss


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

    The gallery is read once, in blocks, so it may be memory-mapped, of any size, and in half
    precision. Beside the result, at most ``chunk * gallery_chunk`` similarities are held, and one
    block of the gallery where it is not in float32 already.

    Rows are compared in float32, and near ties again in double precision; equally similar rows are
    ordered by position. So the result depends neither on the block sizes nor on the order of the
    gallery, unless more than 16 rows beyond the k-th are as near as it.

    Args:
        queries: features, any scale; a row of zeros has similarity 0 to everything.
        gallery: features, any scale.
        k: number of neighbours; at most ``G`` are returned.
        query_groups, gallery_groups: with these, rows of the query's own group are excluded;
            unique groups keep queries that are also the gallery from finding themselves.
        chunk: queries compared at a time.
        gallery_chunk: gallery rows compared at a time.
        device: where to compute; by default where the queries are.
        progress: wraps the sequence of gallery blocks, such as a progress bar.

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
        raise UserError("the gallery is empty: there is nothing to search")
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
        # A query of zeros has scale 0, by which an excluded row's minus infinity is not multiplied.
        similarity = torch.where(position < 0, similarity, similarity * scale[:, None])
        found.append(resolve_ties(part, gallery, similarity, position, k))
    similarities, positions = zip(*found, strict=True)
    return torch.cat(similarities), torch.cat(positions)


def resolve_ties(
    queries: Tensor, gallery: Tensor, similarity: Tensor, position: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the first ``k`` of the candidates ``(Q, K)``, near ties compared in double precision.

    Candidates come in descending order of float32 similarity; what is equal in double precision (to
    12 decimals) is ordered by position. Missing candidates are minus infinity and -1.
    """
    close = similarity[:, :-1] - similarity[:, 1:] <= _NEAR  # false between two missing ones
    tied = close.any(dim=1).nonzero()[:, 0]  # usually few rows
    values, places = similarity[:, :k].clamp(-1, 1), position[:, :k]
    if len(tied):
        none = close.new_zeros(len(tied), 1)
        near = torch.cat([close[tied], none], dim=1) | torch.cat([none, close[tied]], dim=1)
        columns, exact = position[tied], similarity[tied].double()
        exact[near] = _cosines(queries[tied.to(queries.device)], gallery, columns, near)
        by_position = columns.argsort(dim=1)
        order = exact.gather(1, by_position).argsort(dim=1, descending=True, stable=True)
        order = by_position.gather(1, order)[:, :k]
        values, places = values.clone(), places.clone()
        values[tied] = exact.gather(1, order).clamp(-1, 1).float()
        places[tied] = columns.gather(1, order)
    return values.masked_fill(places < 0, -torch.inf), places


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
    given = position >= 0
    found[given] = _cosines(queries, gallery, position, given)
    return found


def _cosines(queries: Tensor, gallery: Tensor, position: Tensor, chosen: Tensor) -> Tensor:
    """Similarity, to 12 decimals, of the pairs where ``chosen`` ``(Q, K)`` is true: ``(P,)``."""
    found = [torch.empty(0, dtype=torch.float64, device=position.device)]
    for pairs in torch.split(chosen.nonzero(), max(1, _NUMBERS // queries.shape[1])):
        rows, columns = pairs.unbind(1)
        first = queries[rows].double()
        second = gallery[position[rows, columns].to(gallery.device)].double().to(first.device)
        if torch.float64 in (queries.dtype, gallery.dtype):  # squares may leave its range
            first, second = (
                x / x.abs().amax(dim=1, keepdim=True).clamp(min=_TINY) for x in (first, second)
            )
        norms = first.norm(dim=1) * second.norm(dim=1)
        cosine = (first * second).sum(dim=1) / norms.clamp(min=_TINY)
        found.append(cosine.round(decimals=12))
    return torch.cat(found)


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices in full precision, whatever a training run has allowed.

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


def divisors(rows: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Return what each row is divided by, so that float32 can take its norm, and 1 / that norm.

    The divisor is 1, or the row's largest magnitude where its norm is extreme; 1 / norm is 0 for
    rows of zeros. ``what`` names the rows in a message.

    Shape: ``(N, F)`` to ``(N,)`` and ``(N,)``

    Raises:
        UserError: a value is not finite.

    Example:
        >>> divisor, inverse = divisors(torch.tensor([[3.0, 4.0], [0.0, 1e-30], [0, 0]]), "query")
        >>> divisor.tolist(), inverse.tolist()
        ([1.0, 1.0000000031710769e-30, 1.0], [0.20000000298023224, 1.0, 0.0])
    """
    norms = torch.linalg.vector_norm(rows.float(), dim=1)
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    found = torch.ones(len(rows), dtype=wide, device=rows.device)
    odd = ((norms < _SAFE[0]) | ~(norms < _SAFE[1])).nonzero()[:, 0]
    if len(odd):
        some = rows[odd]
        if bad := int((~some.isfinite()).any(dim=1).sum()):
            raise UserError(
                f"{bad} rows of the {what} features are not finite; check whether the weights that "
                "produced them are, and extract the features again"
            )
        largest = some.to(wide).abs().amax(dim=1)
        found[odd] = torch.where(largest > 0, largest, 1)
        norms[odd] = torch.linalg.vector_norm(divided(some, found[odd]), dim=1)
    return found, torch.where(norms > 0, 1 / norms, 0.0)


def divided(rows: Tensor, divisor: Tensor) -> Tensor:
    """Return rows ``(N, F)`` in float32, divided by what :func:`divisors` returned, ``(N,)``."""
    if bool((divisor == 1).all()):
        return rows.float()
    return (rows.to(divisor.dtype) / divisor[:, None]).float()
