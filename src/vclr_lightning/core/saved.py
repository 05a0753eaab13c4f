"""Files of ``torch.save``: no code in them is run, and declared sizes are checked."""

from __future__ import annotations

import argparse
import pickletools
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.foreign import CHANGED, CUT, foreign_format

_PICKLE = 64 << 20  # bytes; 100,000 tensors need 15 MB
_DEPTH, _VALUES = 500, 10**7  # of one value in a pickle
_LEGACY = 5  # pickles before the numbers in a file of PyTorch before 1.6
# Modules of Python that pickles of harmless objects refer to.
_HARMLESS = ("_codecs", "argparse", "collections", "copyreg", "datetime", "functools", "pathlib")
_BUILT_IN = {"builtins.set", "builtins.complex", "builtins.object", "builtins.bytearray"}
# What PyTorch allows a file to create in any size.
_BOUNDLESS = re.compile(r"builtins\.bytearray|torch\..*(sparse|nested|meta_tensor).*")
_SAVE = "save the state_dict() alone in the program that wrote it"
_ASK = "ask its author what it is, and for the state_dict() alone or .safetensors"


class _NotPlainError(ValueError):
    """A file holds more than tensors and plain values."""


def load_torch(path: Path, *, mapped: bool = False) -> Any:
    """Load the plain values and tensors of a file of ``torch.save`` onto the CPU.

    With ``mapped``, tensors are mapped into memory instead of being read and verified.

    Raises:
        UserError: it is another kind of file, damaged, contains code, or less than it declares.
    """
    if other := foreign_format(path):
        raise UserError(f"{path} {other}")
    names: set[str] = set()
    archive = False
    status = path.stat()
    try:
        archive = zipfile.is_zipfile(path)
        if archive and path.suffix == ".safetensors":
            raise _NotPlainError("is no safetensors file, but of torch.save; rename it to .pth")
        sizes = (_examine_archive if archive else _examine_legacy)(path, names)
        if archive and not mapped:
            _verify(path, status.st_size, status.st_mtime_ns, status.st_ino)
        content = _load(path, mapped=archive)
        _check(content, sizes)
        return content if mapped == archive else _load(path, mapped=mapped and archive)
    except _NotPlainError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a foreign pickle fails in many ways
        raise UserError(f"{path} {_reason(path, error, names, archive=archive)}") from error


def load_dict(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Load a checkpoint, a dictionary of plain values and tensors; see :func:`load_torch`.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    if not path.exists():
        raise UserError(f"there is no checkpoint at {path}; check the path")
    loaded = load_torch(path, mapped=mapped)
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no checkpoint but a {type(loaded).__name__}")
    return loaded


def _load(path: Path, *, mapped: bool) -> Any:
    # The released code saves its argparse.Namespace beside the weights, which is plain data.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the file's age
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _examine_archive(path: Path, names: set[str]) -> set[int]:
    """Check an archive, add the names in its pickle, and return the sizes of its parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if any(name.endswith(".npy") for name in archive.namelist()):
            raise _NotPlainError("is an archive of NumPy arrays; give a file of torch.save")
        if "constants.pkl" in parts or any(name.startswith("code/") for name in parts):
            raise _NotPlainError(
                "is a TorchScript program, which is not run; load it with torch.jit.load where you "
                "trust it, and save its state_dict()"
            )
        if "data.pkl" not in parts:
            raise _NotPlainError("is a zip archive, but none of torch.save; unpack it")
        if any(info.compress_type for info in parts.values()):
            raise _NotPlainError(
                "was packed again by another program; unpack it, and pack it without compression"
            )
        whole = sum(info.file_size for info in archive.infolist())
        if whole > path.stat().st_size or parts["data.pkl"].file_size > _PICKLE:
            raise _NotPlainError(f"promises {whole:,} bytes, more than it has; {_ASK}")
        with archive.open(parts["data.pkl"]) as pickle:
            _examine(pickle, names)
            pickle.read()  # to its end, which compares its checksum
        return {info.file_size for info in parts.values()}


def _examine_legacy(path: Path, names: set[str]) -> set[int]:
    with path.open("rb") as file:
        for _ in range(_LEGACY):
            _examine(file, names)
    return set()  # the pickle has the sizes of its parts


@lru_cache(maxsize=16)
def _verify(path: Path, *status: int) -> None:
    """Compare all checksums of an archive; once, as long as the file stays the same."""
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile


def _examine(file: IO[bytes], names: set[str]) -> None:
    """Go through a pickle without building anything, and add the names that it refers to.

    Values that refer to another one twice, and so on, are a few bytes in the file but take forever
    to hash or to print; so the size and depth of every value are added up.
    """
    stack: list[tuple[int, int, str]] = []  # size, depth and text of each value
    marks: list[int] = []
    memo: dict[Any, tuple[int, int, str]] = {}
    begin = file.tell()
    for opcode, arg, place in pickletools.genops(file):
        before, after = opcode.stack_before, opcode.stack_after
        taken: list[tuple[int, int, str]] = []
        number = len(before)
        if pickletools.markobject in before:
            number = before.index(pickletools.markobject)
            start = marks.pop()
            taken, stack[start:] = stack[start:], []
        if number:
            taken, stack[-number:] = stack[-number:] + taken, []
        text = arg if isinstance(arg, str) else ""
        value = (1 + sum(t[0] for t in taken), 1 + max((t[1] for t in taken), default=0), text)
        if opcode.name.endswith("PUT"):
            memo[arg] = stack[-1]
        elif opcode.name.endswith("GET"):
            value = memo[arg]
        elif opcode.name == "MEMOIZE":
            value = memo[len(memo)] = taken[0]
        elif opcode.name in ("GLOBAL", "INST"):
            names.add(_present(*text.split(" ", 1)))
        elif opcode.name == "STACK_GLOBAL":
            names.add(_present(taken[0][2], taken[1][2]))
        if value[0] > _VALUES or value[1] > _DEPTH or (place or 0) - begin > _PICKLE:
            raise _NotPlainError(f"holds values without end; {_ASK}")
        if pickletools.markobject in after:
            marks.append(len(stack))
        else:
            stack += [value] * len(after)
    if harmful := sorted(n for n in names if _is_harmful(n)):
        raise _NotPlainError(
            f"holds code: to read it is to run {harmful[0]}, which was not done; {_ASK}"
        )
    if boundless := next((name for name in names if _BOUNDLESS.fullmatch(name)), None):
        raise _NotPlainError(f"holds a {boundless}, which may be of any size; {_SAVE}")


def _present(module: str, name: str) -> str:
    """Return a name in Python 3: pickles of protocol 2 use those of Python 2."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _is_harmful(name: str) -> bool:
    module = name.partition(".")[0]
    standard = module in sys.stdlib_module_names and module not in _HARMLESS
    return standard and name not in _BUILT_IN


def _check(content: Any, sizes: Collection[int]) -> None:
    """Refuse tensors that are larger than their data in the file."""
    for tensor in _tensors(content):
        stored = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.element_size() > stored or (sizes and stored not in sizes):
            shape = tuple(tensor.shape)
            raise _NotPlainError(f"promises a tensor of {shape}, and does not hold it; {_ASK}")


def _tensors(content: Any) -> Iterator[Tensor]:
    left, seen = [content], set()
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, Mapping) else value


def _reason(path: Path, error: Exception, names: Collection[str], *, archive: bool) -> str:
    """Say why a file cannot be loaded."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    others = {n for n in names if n.partition(".")[0] not in ("torch", *_HARMLESS, "builtins")}
    if others or refused:
        needed = sorted(others or {str(refused and refused[1])})
        return (
            f"holds Python objects besides weights ({', '.join(needed[:3])}), which are not loaded "
            f"since that would run their code; {_SAVE}"
        )
    if "Unsupported operand" in str(error):
        return f"was written in a form that is not read without running code; {_SAVE}"
    with path.open("rb") as file:
        begin = file.read(2)
    if begin[:1] != b"\x80" and begin != b"PK":
        return "does not begin as a file of PyTorch or safetensors; give a file of weights"
    return CUT if begin == b"PK" and not archive else CHANGED
