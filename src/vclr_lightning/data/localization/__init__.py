"""Snippet features and annotated segments of untrimmed videos, for temporal action localization."""

from vclr_lightning.data.localization.annotations import (
    AnnotatedVideo,
    LeftOut,
    checked,
    read_annotations,
)
from vclr_lightning.data.localization.positions import LocalizationData, PositionSet, place
from vclr_lightning.data.localization.snippet_files import SnippetFiles, SnippetSet, SnippetSource

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
