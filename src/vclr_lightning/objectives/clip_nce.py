"""InfoNCE on clips, the first stage of CoCLR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from vclr_lightning.objectives.inter_frame import InterFrame
from vclr_lightning.objectives.queued import OwnMask


class ClipNCE(InterFrame):
    """Contrast a clip with another clip of its video, or with itself in another augmentation.

    Han, Xie, Zisserman, "Self-supervised co-training for video representation learning" (NeurIPS
    2020): the InfoNCE that the co-training starts from,

        ``L = -log(exp(q k / t) / (exp(q k / t) + sum over the queue of exp(q k_j / t)))``,

    which reads the queue before the step's keys enter. Whether both clips are one, and which is
    augmented how, is for the transform to say
    (:class:`~vclr_lightning.data.transforms.PairTransform`). It is :class:`InterFrame` with a
    single key, CoCLR's hyper-parameters, and no mask: earlier keys of the query's own video are
    negatives like all others. The heads are CoCLR's, whose convolutions see a single position.

    Args:
        num_features: features of the backbone.
        query: the view of one clip that is the query; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        keys: views whose clips are its keys, by the encoder ``key``.
        temperature: divides every similarity.
        queue_size: number of keys in the queue (16384 for Kinetics-400).
        own_mask: exclude keys of the query's own ``"video"`` or ``"group"`` from its negatives, or
            ``"none"``.
        **options: ``embedding_dim``, ``queue_init`` and ``seed`` of :class:`InterFrame`.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> nce = ClipNCE(num_features=8, embedding_dim=4, queue_size=16)
        >>> nce.requests()["key0"]
        Request(encoder='key', views=('key',))
    """

    def __init__(
        self,
        *,
        num_features: int,
        query: str = "query",
        keys: Sequence[str] = ("key",),
        temperature: float = 0.07,
        queue_size: int = 2048,
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
