"""Files that are damaged, or made to do harm: a sentence or what was written, and nothing else."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import load_backbone


def test_damage_is_noticed_and_ends_no_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("damaged.py")
    command = [sys.executable, str(script), str(tmp_path), "0", "40"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-400:] + ended.stderr


class Call:
    """Pickled, it asks whoever reads it to call something."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.call = what, arguments

    def __reduce__(self) -> Any:
        return self.call


def archive(file: Path, pickle: bytes, parts: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(file, "w") as sink:
        for name, content in {"data.pkl": pickle, "version": b"3\n", **(parts or {})}.items():
            sink.writestr(f"archive/{name}", content)


def pickle_of(file: Path) -> bytes:
    with zipfile.ZipFile(file) as source:
        return source.read(next(n for n in source.namelist() if n.endswith("data.pkl")))


def script(file: Path, folder: Path) -> None:
    archive(file, b"\x80\x02}.", {"constants.pkl": b"\x80\x02).", "code/net.py": b""})


def system(file: Path, folder: Path) -> None:
    torch.save({"model": Call(os.system, f"touch {folder}/run")}, file)


def plain_pickle(file: Path, folder: Path) -> None:
    file.write_bytes(pickle.dumps(Call(eval, "1"), protocol=4))


def program(file: Path, folder: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 4, 1), file)


def zeros(file: Path, folder: Path) -> None:
    torch.save({"a": Call(bytearray, 1 << 40)}, file)


def laughs(file: Path, folder: Path) -> None:
    """A tuple of two tuples of two, and so on: for ever to hash."""
    nested = b"".join(
        b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) + b"0" for k in range(60)
    )
    archive(file, b"\x80\x02}K\x01q\x000" + nested + b"h\x3cK\x01s.")


def deep(file: Path, folder: Path) -> None:
    archive(file, b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x01s.")


def promised(file: Path, folder: Path) -> None:
    """A tensor of two numbers, said to be of two thousand million."""
    torch.save({"a": torch.zeros(2)}, file)
    number = b"J" + struct.pack("<i", 2_000_000_000)
    changed = (
        pickle_of(file).replace(b"K\x02\x85", number + b"\x85").replace(b"K\x01\x85", b"K\0\x85")
    )
    archive(file, changed, {"data/0": bytes(8)})


def bomb(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as sink:
        sink.writestr("archive/data.pkl", b"\x80\x02}.")
        sink.writestr("archive/data/0", bytes(10_000_000))


def arrays(file: Path, folder: Path) -> None:
    with file.open("wb") as sink:
        np.savez(sink, a=np.zeros(3))


def itself(file: Path, folder: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, file)


def without_end(file: Path, folder: Path) -> None:
    content: dict[str, Any] = {"x": 1}
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save({"conv1.weight": torch.zeros(3), "metadata": {"backbone": content}}, file)


def exported(file: Path, spec: str) -> None:
    file.write_bytes(save({"stem.weight": torch.zeros(4, 3, 3, 3)}, {"backbone": spec}))


def deep_json(file: Path, folder: Path) -> None:
    exported(file, "[" * 100_000)


def wide(file: Path, folder: Path) -> None:
    exported(file, '{"_target_": "vclr_lightning.models.TinyBackbone", "width": 4, "stages": 40}')


def huge(file: Path, folder: Path) -> None:
    exported(file, '{"_target_": "vclr_lightning.models.TinyBackbone", "width": 4000000000}')


def endless_header(file: Path, folder: Path) -> None:
    file.write_bytes((1 << 60).to_bytes(8, "little") + b"{" * 99)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (system, "holds code: to read it is to run posix.system, which was not done"),
        (plain_pickle, "holds code: to read it is to run builtins.eval"),
        (program, r"holds Python objects besides weights \(torch.nn.modules.conv.Conv2d\)"),
        (script, "is a TorchScript program"),
        (zeros, "holds a builtins.bytearray, which may be of any size"),
        (laughs, "holds values without end"),
        (deep, "holds values without end"),
        (promised, r"promises a tensor of \(2000000000,\), and does not hold it"),
        (bomb, "was packed again by another program"),
        (arrays, "is an archive of NumPy arrays"),
        (itself, "holds no weights"),
        (without_end, "its values are too many, or nested too deeply"),
        (deep_json, "the description of the network in .* is nested too deeply"),
        (wide, r"cannot be of TinyBackbone\(width=4, stages=40\)"),
        (huge, "width=4000000000 is more than any network has"),
        (endless_header, "is damaged or cut short"),
    ],
)
def test_weights_that_are_made_to_do_harm(
    make: Callable[[Path, Path], None], said: str, tmp_path: Path
) -> None:
    make(file := tmp_path / "weights", tmp_path)
    with pytest.raises(UserError, match=said) as error:
        load_backbone(file)
    assert "\n" not in str(error.value)
    assert "get it again" not in str(error.value) or make is endless_header
    assert not (tmp_path / "run").exists()
