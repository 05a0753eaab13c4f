"""Backbones, and their weights in files."""

from vclr_lightning.models.backbone import Backbone, WrappedBackbone
from vclr_lightning.models.export import export_backbone, load_backbone, random_backbone
from vclr_lightning.models.resnet3d import ResNet2d3d, SlowFastPathway
from vclr_lightning.models.timm import TimmBackbone
from vclr_lightning.models.tiny import TinyBackbone
from vclr_lightning.models.torchvision import TorchvisionResNet, TorchvisionVideo
from vclr_lightning.models.weights import WeightReport, load_initial_weights

__all__ = [
    "Backbone",
    "ResNet2d3d",
    "SlowFastPathway",
    "TimmBackbone",
    "TinyBackbone",
    "TorchvisionResNet",
    "TorchvisionVideo",
    "WeightReport",
    "WrappedBackbone",
    "export_backbone",
    "load_backbone",
    "load_initial_weights",
    "random_backbone",
]
