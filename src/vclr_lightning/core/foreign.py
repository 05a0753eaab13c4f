"""What a file is that should hold weights, or a video, and does not."""

from __future__ import annotations

import re
from pathlib import Path

CUT = "is damaged or cut short, as an interrupted download leaves it; get it again"
CHANGED = "is damaged: some of its bytes are missing or changed; get it again"
TEXT = "is a text file"
HEAD = 512
"""Bytes that are enough to recognise a file."""

_WANTED = "give a file of PyTorch (.pth, .ckpt) or .safetensors"
_ANSWER = "as a failed download leaves; get the file again"
_KINDS = {
    rb"version https://git-lfs": "is Git LFS's pointer to the file; run git lfs pull",
    rb"(?i)<(!doctype html|html|head|body)": f"is an HTML page, {_ANSWER}",
    rb"<": f"is an XML text, {_ANSWER}",
    rb'\{\s*"|\[\s*[{"]': f"is a JSON text, {_ANSWER}",
    rb"PK[\x03\x05]": "is a zip archive; unpack it",
    rb"\x1f\x8b": "is packed by gzip; unpack it",
    rb"BZh": "is packed by bzip2; unpack it",
    rb"\xfd7zXZ": "is packed by xz; unpack it",
    rb"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it",
    rb"7z\xbc\xaf": "is a 7-Zip archive; unpack it",
    rb"Rar!": "is a RAR archive; unpack it",
    rb"(?s).{257}ustar": "is a tar archive; unpack it",
    rb"%PDF": "is a PDF document",
}
_NUMBERS = {
    b"\x93NUMPY": "is an array of NumPy",
    b"\x89HDF": "is an HDF5 file, as Keras and TensorFlow write",
    b"ARROW1": "is an Arrow file, such as a manifest",
    b"GGUF": "is a GGUF file",
}
_LETTERS = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")
_TENSORFLOW = re.compile(r".*\.(data-\d+-of-\d+|index|meta|pb|tflite)")


def kind_of(head: bytes) -> str | None:
    """Return what a file with these first :data:`HEAD` bytes is, if neither a video nor weights.

    Example:
        >>> kind_of(b"<!DOCTYPE html><title>404</title>")
        'is an HTML page, as a failed download leaves; get the file again'
        >>> kind_of(b"not a video")
        'is a text file'
        >>> kind_of(b"YUV4MPEG2 W8 H8 FRAME " + b"@" * 64)
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, what in _KINDS.items():
        if re.match(beginning, text):
            return what
    # Grey frames of uncompressed video may look like letters.
    return TEXT if _LETTERS.fullmatch(head) and head and not head.startswith(b"YUV4MPEG2") else None


def foreign_format(path: Path) -> str | None:
    """Return what a file is, and what to do, where it is surely none of PyTorch or safetensors.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "resnet50.pth"
        >>> _ = file.write_text("<html>404: not found</html>")
        >>> foreign_format(file)
        'is an HTML page, as a failed download leaves; get the file again'
    """
    if path.is_dir():
        weights = sorted(p.name for p in path.iterdir() if p.suffix in (".ckpt", ".safetensors"))
        if not weights and (path / "saved_model.pb").exists():
            return f"is a model of TensorFlow; {_WANTED}"
        return f"is a folder; give the file in it{f', such as {weights[0]}' if weights else ''}"
    if path.exists() and not path.is_file():  # reading could block, or never end
        return "is a device or a pipe, no regular file"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if not head:
        return "is empty; get it again"
    if head.startswith((b"PK", b"\x80")) or head[5:9] == b"\0\0\0{":
        return None  # PyTorch and safetensors begin like this
    for beginning, what in _NUMBERS.items():
        if head.startswith(beginning):
            return f"{what}; {_WANTED}"
    if path.suffix == ".onnx" or (head[0] == 8 and head[2:3] == b"\x12"):
        return f"is an ONNX file; {_WANTED}"
    if _TENSORFLOW.fullmatch(path.name):
        return f"is a file of TensorFlow; {_WANTED}"
    kind = kind_of(head)
    return None if kind == TEXT else kind
