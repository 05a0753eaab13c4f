"""Evaluation of frozen features: retrieval, k-NN, linear probe."""

from vclr_lightning.evaluation.encoders import TRIVIAL, Encode, frame_encoder
from vclr_lightning.evaluation.features import FeatureSet, extract_each, extract_features
from vclr_lightning.evaluation.frozen import (
    chance,
    compare_features,
    extract_seeds,
    frozen_evaluation,
    linear_probe,
    retrieval,
)
from vclr_lightning.evaluation.table import FrozenRow, FrozenTable, merge_tables

__all__ = [
    "TRIVIAL",
    "Encode",
    "FeatureSet",
    "FrozenRow",
    "FrozenTable",
    "chance",
    "compare_features",
    "extract_each",
    "extract_features",
    "extract_seeds",
    "frame_encoder",
    "frozen_evaluation",
    "linear_probe",
    "merge_tables",
    "retrieval",
]
