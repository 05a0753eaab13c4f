"""Backbones, and their weights in files."""

from vclr_lightning.models.backbone import Backbone, WrappedBackbone
from vclr_lightning.models.export import export_backbone, load_backbone, random_backbone
from vclr_lightning.models.hub import from_pretrained, push_to_hub
from vclr_lightning.models.pace_networks import C3D, PaceResNet
from vclr_lightning.models.resnet3d import ResNet2d3d, SlowFastPathway
from vclr_lightning.models.s3dg import S3DG
from vclr_lightning.models.timm import TimmBackbone
from vclr_lightning.models.tiny import TinyBackbone
from vclr_lightning.models.torchvision import TorchvisionResNet, TorchvisionVideo
from vclr_lightning.models.trusted_networks import register_backbone
from vclr_lightning.models.tsm import TSMResNet
from vclr_lightning.models.video_transformers import TorchvisionMViT, TorchvisionSwin
from vclr_lightning.models.weights import WeightReport, load_initial_weights

__all__ = [
    "C3D",
    "S3DG",
    "Backbone",
    "PaceResNet",
    "ResNet2d3d",
    "SlowFastPathway",
    "TSMResNet",
    "TimmBackbone",
    "TinyBackbone",
    "TorchvisionMViT",
    "TorchvisionResNet",
    "TorchvisionSwin",
    "TorchvisionVideo",
    "WeightReport",
    "WrappedBackbone",
    "export_backbone",
    "from_pretrained",
    "load_backbone",
    "load_initial_weights",
    "push_to_hub",
    "random_backbone",
    "register_backbone",
]
