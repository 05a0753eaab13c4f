"""Store a data set in a few large files, for object stores and network disks."""

from vclr_lightning.data.shards.pack import Packed, pack

__all__ = ["Packed", "pack"]
