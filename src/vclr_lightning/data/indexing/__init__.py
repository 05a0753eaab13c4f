"""Build a manifest from folders of videos, list files, or data sets' official files."""

from vclr_lightning.data.indexing.ensure import ensure_manifest
from vclr_lightning.data.indexing.indexer import Indexed, index_videos
from vclr_lightning.data.indexing.source import ListingSource

__all__ = ["Indexed", "ListingSource", "ensure_manifest", "index_videos"]
