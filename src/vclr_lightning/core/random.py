"""Randomness as a function of keys, so that no worker, rank or restart changes a draw.

And the state of the global generators, for code that draws from those.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Key = int | str


def _seed_sequence(keys: tuple[Key, ...]) -> np.random.SeedSequence:
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else int(k) for k in keys]
    try:
        # The same sequence as of the list, which takes three times as long to read.
        return np.random.SeedSequence(np.array(words, dtype=np.uint32))
    except OverflowError:  # a seed of more than 32 bits
        return np.random.SeedSequence(words)


def numpy_generator(*keys: Key) -> np.random.Generator:
    """Return the generator of these keys (non-negative integers, or names of a use).

    Example:
        >>> a = numpy_generator(0, 3, 17, "anchor").integers(1000)
        >>> b = numpy_generator(0, 3, 17, "anchor").integers(1000)
        >>> bool(a == b)
        True
    """
    return np.random.Generator(np.random.Philox(_seed_sequence(keys)))


def seed_of(*keys: Key) -> int:
    """Return a 63-bit seed of these keys.

    Example:
        >>> seed_of(0, 1, "dropout") == seed_of(0, 1, "dropout") != seed_of(0, 2, "dropout")
        True
    """
    return int(_seed_sequence(keys).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(*keys: Key, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator on ``device``, seeded by these keys."""
    import torch

    return torch.Generator(device).manual_seed(seed_of(*keys))


def random_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's and torch's global generators as plain values.

    Of CUDA only the current device's, since asking another one would allocate memory there.

    Example:
        >>> import torch
        >>> before = random_state()
        >>> first = torch.rand(2)
        >>> set_random_state(before)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    import torch

    version, words, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": {
            "version": version,
            "words": torch.from_numpy(np.array(words, dtype=np.int64)),
            "gauss": gauss,
        },
        "numpy": {
            "key": torch.tensor(np.asarray(key, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned."""
    import torch

    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    key = numpy["key"].numpy().astype(np.uint32)
    np.random.set_state(
        ("MT19937", key, numpy["position"], numpy["has_gauss"], numpy["cached"]),
    )
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the global generators as they were before the block."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
