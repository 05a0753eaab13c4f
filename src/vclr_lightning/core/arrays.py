"""NumPy's array files, whose headers may promise anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError


def map_array(file: Path) -> NDArray[Any]:
    """Return the numbers of a ``.npy`` file, mapped into memory; changes do not reach the file.

    Raises:
        UserError: it cannot be read, is shorter than its header says, or holds no plain numbers.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.array([{}]), allow_pickle=True)
        >>> map_array(file)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: .../a.npy is no .npy file of numbers (it holds object)
    """
    try:
        with file.open("rb") as source:
            version = np.lib.format.read_magic(source)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(source)
            offset = source.tell()
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {dtype.name}")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != (
            file.stat().st_size - offset
        ):
            raise ValueError(f"its size is not that of the shape {shape}, which it gives")
        array: NDArray[Any] = np.load(file, mmap_mode="c" if math.prod(shape) else None)
        return array
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is no .npy file of numbers ({said})") from error
