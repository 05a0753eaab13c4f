"""Gaussian blur as PIL does it: three box filters, here as one separable kernel.

A sampled Gaussian would differ for small sigmas: its variance then falls short of sigma squared,
while that of the boxes does not. :func:`sampled_blur` is that of methods which do sample it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE = 256


def blur_taps(sigma: float) -> list[int]:
    """Return the weights of the centre and of each distance from it, in 256ths, up to the last > 0.

    A box of fractional width has equal weights except the two outermost; three in a row have the
    variance ``sigma`` squared. Weights are rounded so that every partial sum from the outside is
    right to half a 256th.

    Example:
        >>> blur_taps(1.0)
        [104, 61, 14, 1]
    """
    variance = sigma * sigma / 3
    radius = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * radius + 1) * (radius * (radius + 1) - 3 * variance)
    edge /= 6 * (variance - (radius + 1) ** 2)
    box = np.array([edge, *[1.0] * (2 * radius + 1), edge]) / (2 * radius + 1 + 2 * edge)
    kernel = np.convolve(np.convolve(box, box), box).tolist()
    return _rounded(kernel[: len(kernel) // 2])


def gaussian_taps(sigma: float, radius: int) -> list[int]:
    """Return the weights of a Gaussian sampled at whole pixels, as :func:`blur_taps` does.

    Example:
        >>> gaussian_taps(1.0, 1), gaussian_taps(1.0, 11)
        ([116, 70], [102, 62, 14, 1])
    """
    at = np.arange(-radius, radius + 1)
    kernel = np.exp(-(at**2) / (2 * sigma**2))
    return _rounded((kernel[:radius] / kernel.sum()).tolist())


def _rounded(side: list[float]) -> list[int]:
    """Return a kernel in 256ths, given its weights from the outside up to the centre."""
    taps: list[int] = []
    outside = 0.0
    for weight in side:
        outside += _ONE * weight
        tap = round(outside) - sum(taps)
        if tap or taps:
            taps.append(tap)
    return [_ONE - 2 * sum(taps), *reversed(taps)]


def gaussian_blur(planes: NDArray[np.int16], sigma: float) -> NDArray[np.int16]:
    """Blur planes ``(C, H, W)`` int16 of 0..255, padded by their mirror image with repeated edges.

    PIL repeats the edge pixels before every box, which is the same for narrow boxes. The result is
    a view into a larger array.

    Example:
        >>> int(gaussian_blur(np.full((1, 8, 8), 77, np.int16), 2.0).max())
        77
    """
    taps = blur_taps(sigma)
    if len(taps) == 1:
        return planes
    return _convolved(_pad(planes.view(np.uint16), len(taps) - 1), taps)


def sampled_blur(planes: NDArray[np.int16], sigma: float, *, radius: int) -> NDArray[np.int16]:
    """Blur planes ``(C, H, W)`` int16 by a Gaussian of ``2 radius + 1`` taps, padded by black.

    Example:
        >>> point = np.array([0, 0, 100, 0, 0], np.int16).reshape(1, 1, 5)
        >>> sampled_blur(point, 1.0, radius=1).ravel().tolist()
        [0, 12, 20, 12, 0]
    """
    taps = gaussian_taps(sigma, radius)
    pad = len(taps) - 1
    return _convolved(np.pad(planes.view(np.uint16), ((0, 0), (pad, pad), (pad, pad))), taps)


def _convolved(padded: NDArray[np.uint16], taps: list[int]) -> NDArray[np.int16]:
    """Convolve both directions of padded planes by the same kernel."""
    center, *sides = (np.uint16(tap) for tap in taps)
    pad = len(sides)
    # Both passes run over the flat padded array, where a neighbour is a fixed step away, and leave
    # a result at the place of its first neighbour. Computing the padding, too, costs less than
    # loops over rows.
    source = padded.ravel()
    for step in (padded.shape[2], 1):
        middle = pad * step
        length = source.size - 2 * middle
        result = np.empty_like(source)
        total = np.multiply(source[middle : middle + length], center, out=result[:length])
        pair = np.empty_like(total)
        for distance, tap in enumerate(sides, start=1):
            before, after = middle - distance * step, middle + distance * step
            np.add(source[before : before + length], source[after : after + length], out=pair)
            pair *= tap
            total += pair
        total += np.uint16(_ONE // 2)
        total >>= np.uint16(8)
        source = result
    _, height, width = padded.shape
    return source.view(np.int16).reshape(padded.shape)[:, : height - 2 * pad, : width - 2 * pad]


def _pad(planes: NDArray[np.uint16], pad: int) -> NDArray[np.uint16]:
    """Pad each plane with ``pad`` pixels of its mirror image."""
    channels, height, width = planes.shape
    if min(height, width) < pad:  # rare, and several times slower
        return np.pad(planes, ((0, 0), (pad, pad), (pad, pad)), mode="symmetric")
    padded = np.empty((channels, height + 2 * pad, width + 2 * pad), np.uint16)
    rows = padded[:, pad:-pad]
    rows[:, :, pad:-pad] = planes
    rows[:, :, :pad] = planes[:, :, :pad][:, :, ::-1]
    rows[:, :, -pad:] = planes[:, :, -pad:][:, :, ::-1]
    padded[:, :pad] = padded[:, pad : 2 * pad][:, ::-1]
    padded[:, -pad:] = padded[:, -2 * pad : -pad][:, ::-1]
    return padded
