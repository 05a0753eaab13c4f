"""What a file is that should hold weights and does not."""

from __future__ import annotations

import re
from pathlib import Path

CUT = "is damaged or cut short, as a download that stopped leaves it; get it again"
CHANGED = "is damaged: some of its bytes are missing or changed; get it again"
_WANTED = "give a file of PyTorch (.pth, .ckpt) or .safetensors"
_PAGE = "is a page of text, as a failed download leaves; get the file again"
_BEGINNINGS = {
    b"version https://git-lfs": "is Git LFS's pointer to the file; run git lfs pull",
    b"<": _PAGE,
    b"{": _PAGE,
    b"\x93NUMPY": f"is an array of NumPy; {_WANTED}",
    b"\x89HDF": f"is an HDF5 file, as Keras and TensorFlow write; {_WANTED}",
    b"ARROW1": f"is an Arrow file, such as a manifest; {_WANTED}",
    b"GGUF": f"is a GGUF file; {_WANTED}",
    b"\x1f\x8b": "is packed by gzip; unpack it",
    b"BZh": "is packed by bzip2; unpack it",
    b"\xfd7zXZ": "is packed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it",
    b"7z\xbc\xaf": "is a 7-Zip archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
}
_TENSORFLOW = re.compile(r".*\.(data-\d+-of-\d+|index|meta|pb|tflite)")


def what_it_is(path: Path) -> str | None:
    """Return what a file is and what to do, where it is surely none of PyTorch or safetensors.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "resnet50.pth"
        >>> _ = file.write_text("<html>404: not found</html>")
        >>> what_it_is(file)
        'is a page of text, as a failed download leaves; get the file again'
    """
    if path.is_dir():
        weights = sorted(p.name for p in path.iterdir() if p.suffix in (".ckpt", ".safetensors"))
        if not weights and (path / "saved_model.pb").exists():
            return f"is a model of TensorFlow; {_WANTED}"
        return f"is a folder; give the file in it{f', such as {weights[0]}' if weights else ''}"
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if not head:
        return "is empty; get it again"
    if head.startswith((b"PK", b"\x80")) or head[5:9] == b"\0\0\0{":
        return None  # as PyTorch's and safetensors' begin
    for beginning, what in _BEGINNINGS.items():
        if head.lstrip().startswith(beginning):
            return what
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it"
    if path.suffix == ".onnx" or (head[0] == 8 and head[2:3] == b"\x12"):
        return f"is an ONNX file; {_WANTED}"
    if _TENSORFLOW.fullmatch(path.name):
        return f"is a file of TensorFlow; {_WANTED}"
    return None
