"""Examine the videos of a data set before training: what is broken, doubled, leaking, or odd."""

from vclr_lightning.data.doctor.diagnosis import diagnose
from vclr_lightning.data.doctor.doctor_page import result_of_diagnosis
from vclr_lightning.data.doctor.subject import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose", "result_of_diagnosis"]
