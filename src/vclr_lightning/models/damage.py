"""What a file is that should hold weights and cannot be read."""

from __future__ import annotations

from pathlib import Path

CHANGED = "some of its bytes are missing or changed"
_BEGINNINGS = {
    b"version https://git-lfs": "it is Git LFS's pointer to the file, which git lfs pull fetches",
    b"<": "it is a page of text, as a failed download leaves",
    b"{": "it is a page of text, as a failed download leaves",
}


def damage(path: Path) -> str:
    """Say in words what is wrong with a file, as far as its first bytes and its size tell.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "resnet50.pth"
        >>> _ = file.write_text("<html>404: not found</html>")
        >>> damage(file)
        'it is a page of text, as a failed download leaves'
    """
    try:
        empty = path.stat().st_size == 0
        with path.open("rb") as file:
            head = file.read(64).lstrip()
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"
    if empty:
        return "it is empty"
    for beginning, told in _BEGINNINGS.items():
        if head.startswith(beginning):
            return told
    if path.suffix != ".safetensors" and not head.startswith((b"PK", b"\x80")):
        return "it does not begin as what torch.save writes"
    return CHANGED
