"""Video-level contrastive learning (VCLR) with PyTorch Lightning and Hydra.

Importing the package imports nothing heavy; each subpackage is imported when it is needed.
"""

__version__ = "0.1.0"
