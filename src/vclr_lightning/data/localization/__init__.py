"""Snippet features and annotated spans of untrimmed videos, for temporal localisation."""

from vclr_lightning.data.localization.annotations import (
    AnnotatedVideo,
    LeftOut,
    checked,
    read_annotations,
)
from vclr_lightning.data.localization.datamodule import LocalizationData
from vclr_lightning.data.localization.positions import PositionSet, place
from vclr_lightning.data.localization.snippets import SnippetFiles, SnippetSet, SnippetSource

__all__ = [
    "AnnotatedVideo",
    "LeftOut",
    "LocalizationData",
    "PositionSet",
    "SnippetFiles",
    "SnippetSet",
    "SnippetSource",
    "checked",
    "place",
    "read_annotations",
]
