"""Labelled synthetic videos: H.264 files in which only what happens over time tells the class."""

from vclr_lightning.data.synthetic.actions import ACTIONS
from vclr_lightning.data.synthetic.generate import generate

__all__ = ["ACTIONS", "generate"]
