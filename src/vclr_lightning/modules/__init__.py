"""LightningModules: state and hooks, no formulas."""

from vclr_lightning.modules.finetuning import FinetuneModule
from vclr_lightning.modules.pretraining import PretrainModule

__all__ = ["FinetuneModule", "PretrainModule"]
