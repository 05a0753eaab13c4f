"""Hydra configuration of vclr_lightning; travels in the wheel as ``vclr_lightning.conf``."""

from vclr_lightning.app.resolvers import register_resolvers

register_resolvers()
