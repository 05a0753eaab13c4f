"""MoCo v2: two augmentations of one picture against a queue of other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from vclr_lightning.objectives.inter_frame import InterFrame
from vclr_lightning.objectives.queued import OwnMask


class MoCo(InterFrame):
    """Contrast a picture with another augmentation of it, against the pictures seen before.

    Chen, Fan, Girshick, He, "Improved baselines with momentum contrastive learning" (2020), after
    He et al., "Momentum contrast for unsupervised visual representation learning" (CVPR 2020):

        ``L = -log(exp(q k / t) / (exp(q k / t) + sum over the queue of exp(q k_j / t)))``,

    with ``q`` and ``k`` embedded by the query and the key encoder. The batch's own keys are no
    negatives; they enter the queue after the step. It is :class:`InterFrame` with a single key, the
    hyper-parameters of MoCo v2, and no mask of a query's own earlier keys.

    Args:
        num_features: features of the backbone.
        query: the view of one clip that is the query; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        keys: views whose clips are its keys, by the encoder ``key``.
        temperature: divides every similarity (0.07 in the first version).
        queue_size: number of keys in the queue.
        own_mask: exclude keys of the query's own ``"video"`` or ``"group"`` from its negatives, or
            ``"none"``.
        **options: ``embedding_dim``, ``queue_init`` and ``seed`` of :class:`InterFrame`.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> moco = MoCo(num_features=8, embedding_dim=4, queue_size=16)
        >>> [request.views for request in moco.requests().values()]
        [('queries',), ('keys',)]
    """

    def __init__(
        self,
        *,
        num_features: int,
        query: str = "queries",
        keys: Sequence[str] = ("keys",),
        temperature: float = 0.2,
        queue_size: int = 65536,
        own_mask: OwnMask = "none",
        **options: Annotated[Any, InterFrame],
    ) -> None:
        super().__init__(
            num_features=num_features,
            query=query,
            keys=keys,
            temperature=temperature,
            queue_size=queue_size,
            own_mask=own_mask,
            **options,
        )
