"""LightningModules: state and hooks, no formulas."""

from vclr_lightning.modules.finetuning import FinetuneModule
from vclr_lightning.modules.momentum_encoder import MomentumEncoder
from vclr_lightning.modules.parameter_groups import ParameterGroup
from vclr_lightning.modules.pretraining import PretrainModule

__all__ = ["FinetuneModule", "MomentumEncoder", "ParameterGroup", "PretrainModule"]
