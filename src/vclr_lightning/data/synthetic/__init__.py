"""Labelled synthetic videos: H.264 files whose class shows only in what happens over time."""

from vclr_lightning.data.synthetic.actions import ACTIONS
from vclr_lightning.data.synthetic.generate import generate

__all__ = ["ACTIONS", "generate"]
