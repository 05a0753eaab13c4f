"""Readers: frames of a video by presentation rank, out of files or folders of pictures."""

from vclr_lightning.data.readers.image_folder import ImageFolderReader
from vclr_lightning.data.readers.probing import VideoProbe, probe
from vclr_lightning.data.readers.pyav import PyAVReader

__all__ = ["ImageFolderReader", "PyAVReader", "VideoProbe", "probe"]
