"""Objectives: one file each, thin modules over ``functional``."""

from vclr_lightning.objectives.base import Objective, ObjectiveFactory
from vclr_lightning.objectives.classify import Classify
from vclr_lightning.objectives.clip_nce import ClipNCE
from vclr_lightning.objectives.cvrl import CVRL
from vclr_lightning.objectives.dpc import DPC
from vclr_lightning.objectives.inter_frame import InterFrame
from vclr_lightning.objectives.intra_frame import IntraFrame
from vclr_lightning.objectives.memdpc import MemDPC
from vclr_lightning.objectives.moco import MoCo
from vclr_lightning.objectives.seco import PrecedesOrFollows
from vclr_lightning.objectives.temporal_order import TemporalOrder
from vclr_lightning.objectives.video_level import VideoLevel
from vclr_lightning.objectives.vince import Vince
from vclr_lightning.objectives.vthcl import VTHCL

__all__ = [
    "CVRL",
    "DPC",
    "VTHCL",
    "Classify",
    "ClipNCE",
    "InterFrame",
    "IntraFrame",
    "MemDPC",
    "MoCo",
    "Objective",
    "ObjectiveFactory",
    "PrecedesOrFollows",
    "TemporalOrder",
    "VideoLevel",
    "Vince",
]
