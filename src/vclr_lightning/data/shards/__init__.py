"""Store a data set in a few large files, for object stores and network disks."""

from vclr_lightning.data.shards.pack import pack
from vclr_lightning.data.shards.result import Packed

__all__ = ["Packed", "pack"]
