"""Videos of a folder: class per subfolder, or none; splits by the topmost folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vclr_lightning.data.indexing.entries import Entry, Listing
from vclr_lightning.data.indexing.files import Found, same_name

_SPLITS = {
    "train": ("train", "training", "train_256"),
    "val": ("val", "valid", "validate", "validation", "val_256"),
    "test": ("test", "testing", "test_256"),
}
SPLIT_NAMES: Mapping[str, str] = {n: split for split, names in _SPLITS.items() for n in names}


def listing_of_folder(found: Found, *, with_classes: bool = True, split: str = "train") -> Listing:
    """Turn files into entries.

    Where all videos lie below folders of a split's name (``train``, ``validation``, ``test_256``
    and the like), these are the splits ``train``, ``val`` and ``test``; otherwise ``split`` is the
    split of all. The first folder below that is the class; a video directly in it has none.

    Example:
        >>> listing = listing_of_folder(Found(["train/run/a.mp4", "validation/run/b.mp4"]))
        >>> [(entry.split, entry.label) for entry in listing.entries], listing.classes
        ([('train', 0), ('val', 0)], ('run',))
    """
    parts = [path.split("/")[:-1] for path in found.paths]
    splits = all(part and part[0] in SPLIT_NAMES for part in parts)
    names = [part[int(splits) :] for part in parts]
    folders = [same_name(name[0]) if name and with_classes else None for name in names]
    classes, labels = labels_of_names(folders)
    entries = [
        Entry(path=path, split=SPLIT_NAMES[part[0]] if splits else split, label=label)
        for path, part, label in zip(found.paths, parts, labels, strict=True)
    ]
    return Listing(entries=entries, classes=classes)


def labels_of_names(names: Sequence[str | None]) -> tuple[tuple[str, ...], list[int]]:
    """Return the sorted class names, and each video's position among them (-1 for none).

    Example:
        >>> labels_of_names(["walk", None, "run"])
        (('run', 'walk'), [1, -1, 0])
    """
    classes = tuple(sorted({name for name in names if name is not None}))
    codes = {name: code for code, name in enumerate(classes)}
    return classes, [-1 if name is None else codes[name] for name in names]
