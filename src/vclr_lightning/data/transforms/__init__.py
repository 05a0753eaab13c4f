"""Convert decoded frames to images of fixed size: random for training, fixed for evaluation.

:mod:`.augmentation` draws parameters; the other files apply them, with torch and NumPy, with OpenCV
(:mod:`.opencv`), or for a batch on a device (:mod:`.batched`).
"""

from __future__ import annotations

from vclr_lightning.data.transforms.augmentation import Augmentation, Box
from vclr_lightning.data.transforms.backends import Augment, Backend
from vclr_lightning.data.transforms.batched import augment_batch
from vclr_lightning.data.transforms.clip_steps import Compose, Resize
from vclr_lightning.data.transforms.color_steps import Blur, Flip, Gray, Jitter, Solarize
from vclr_lightning.data.transforms.crops import (
    AreaCrop,
    CenterCrop,
    FixedCrop,
    MultiScaleCrop,
    UniformAspectCrop,
)
from vclr_lightning.data.transforms.eval_transforms import EvalTransform, ViewsTransform
from vclr_lightning.data.transforms.finetune_transform import FinetuneTransform
from vclr_lightning.data.transforms.pair_transform import PairTransform
from vclr_lightning.data.transforms.pretrain_transform import PretrainTransform, augment
from vclr_lightning.data.transforms.puzzle_transform import PuzzleTransform

__all__ = [
    "AreaCrop",
    "Augment",
    "Augmentation",
    "Backend",
    "Blur",
    "Box",
    "CenterCrop",
    "Compose",
    "EvalTransform",
    "FinetuneTransform",
    "FixedCrop",
    "Flip",
    "Gray",
    "Jitter",
    "MultiScaleCrop",
    "PairTransform",
    "PretrainTransform",
    "PuzzleTransform",
    "Resize",
    "Solarize",
    "UniformAspectCrop",
    "ViewsTransform",
    "augment",
    "augment_batch",
]
