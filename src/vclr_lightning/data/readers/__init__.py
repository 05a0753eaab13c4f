"""Readers: frames of a video by frame index, out of files, shards or folders of pictures."""

from vclr_lightning.data.readers.image_folder import ImageFolderReader
from vclr_lightning.data.readers.pyav import PyAVReader
from vclr_lightning.data.readers.shards import ShardReader
from vclr_lightning.data.readers.table_store import TableStore
from vclr_lightning.data.readers.torchcodec import TorchcodecReader
from vclr_lightning.data.readers.video_probe import VideoProbe, probe

__all__ = [
    "ImageFolderReader",
    "PyAVReader",
    "ShardReader",
    "TableStore",
    "TorchcodecReader",
    "VideoProbe",
    "probe",
]
