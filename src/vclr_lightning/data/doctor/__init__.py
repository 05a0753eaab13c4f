"""Examine the videos of a data set before training: what is broken, doubled, leaking, or odd.

:mod:`~vclr_lightning.data.doctor.doctor_page` makes the page; it is not imported here, as processes
that examine videos start faster without PyTorch.
"""

from vclr_lightning.data.doctor.diagnosis import diagnose
from vclr_lightning.data.doctor.subject import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
