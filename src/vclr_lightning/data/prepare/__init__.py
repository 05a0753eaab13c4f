"""Re-encode a data set once, so that training reads it at a fraction of the cost."""

from vclr_lightning.data.prepare.prepare import prepare
from vclr_lightning.data.prepare.recipe import Recipe
from vclr_lightning.data.prepare.result import Prepared

__all__ = ["Prepared", "Recipe", "prepare"]
