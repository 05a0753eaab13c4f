"""LightningModules: state and hooks, no formulas."""

from vclr_lightning.modules.finetune import FinetuneModule
from vclr_lightning.modules.pretrain import PretrainModule

__all__ = ["FinetuneModule", "PretrainModule"]
