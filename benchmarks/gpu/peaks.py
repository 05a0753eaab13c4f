"""Peak rates of NVIDIA's cards, without sparsity."""

from __future__ import annotations

from typing import NamedTuple


class Peak(NamedTuple):
    """TFLOP/s by the format of the factors; ``None`` where there are no tensor cores for it."""

    name: str
    float32: float
    tf32: float | None
    half: float | None  # float16 or bfloat16 with float32 sums
    bfloat16: bool
    source: str


# The first whose words are all in the card's name, so special ones come first. Datasheets that give
# rates with sparsity are halved.
PEAKS = (
    (("H200", "NVL"), Peak("H200 NVL", 60, 417.5, 835.5, True, "NVIDIA H200 datasheet")),
    (("H200",), Peak("H200 SXM", 67, 494.5, 989.5, True, "NVIDIA H200 datasheet")),
    (("H100", "NVL"), Peak("H100 NVL", 60, 417.5, 835.5, True, "NVIDIA H100 datasheet")),
    (("H100", "PCIe"), Peak("H100 PCIe", 51, 378, 756, True, "NVIDIA H100 datasheet")),
    (("H100",), Peak("H100 SXM", 67, 494.5, 989.5, True, "NVIDIA H100 datasheet")),
    (("A100",), Peak("A100", 19.5, 156, 312, True, "NVIDIA A100 datasheet")),
    (("L40S",), Peak("L40S", 91.6, 183, 362, True, "NVIDIA L40S datasheet")),
    (("4090",), Peak("RTX 4090", 82.6, 82.6, 165.2, True, "NVIDIA Ada whitepaper, appendix A")),
    (("V100S",), Peak("V100S", 16.4, None, 130, False, "NVIDIA V100 datasheet")),
    (("V100", "PCIE"), Peak("V100 PCIe", 14, None, 112, False, "NVIDIA V100 datasheet")),
    (("V100",), Peak("V100 SXM2", 15.7, None, 125, False, "NVIDIA V100 datasheet")),
    (("T4",), Peak("T4", 8.1, None, 65, False, "NVIDIA T4 datasheet")),
)


def find_peak(card: str) -> Peak | None:
    """Return the peak rates of a card by the name that CUDA gives; ``None`` where unknown.

    Example:
        >>> find_peak("NVIDIA H100 80GB HBM3").name, find_peak("NVIDIA H100 PCIe").name
        ('H100 SXM', 'H100 PCIe')
        >>> find_peak("NVIDIA GeForce GTX 1080")
    """
    words = {word.casefold() for word in card.replace("-", " ").split()}
    for wanted, peak in PEAKS:
        if all(word.casefold() in words for word in wanted):
            return peak
    return None


def peak_rate(peak: Peak | None, form: str) -> float | None:
    """Return the TFLOP/s of ``fp32``, ``tf32`` or ``bf16``; ``None`` where unknown."""
    if peak is None:
        return None
    if form == "bf16":
        return peak.half if peak.bfloat16 else None
    return peak.float32 if form == "fp32" or peak.tf32 is None else peak.tf32
