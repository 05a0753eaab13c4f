"""Hydra configuration of vclr_lightning; travels in the wheel as ``vclr_lightning.conf``."""
