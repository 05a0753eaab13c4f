"""Turn decoded frames into pictures of fixed size: random for training, fixed for evaluation.

Sampling and pixels are apart: :mod:`.augmentation` draws parameters, the other files apply them.
"""

from __future__ import annotations

from vclr_lightning.data.transforms.augmentation import Augmentation, Box
from vclr_lightning.data.transforms.evaluate import EvalTransform
from vclr_lightning.data.transforms.pretrain import PretrainTransform, augment

__all__ = ["Augmentation", "Box", "EvalTransform", "PretrainTransform", "augment"]
