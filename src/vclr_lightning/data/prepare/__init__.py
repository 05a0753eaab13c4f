"""Re-encode a data set once, so that training reads it at a fraction of the cost."""

from vclr_lightning.data.prepare.preparation import prepare
from vclr_lightning.data.prepare.prepared import Prepared
from vclr_lightning.data.prepare.transcode import Recipe

__all__ = ["Prepared", "Recipe", "prepare"]
