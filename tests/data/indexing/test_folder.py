from __future__ import annotations

from vclr_lightning.data.indexing.files import Found
from vclr_lightning.data.indexing.folder import listing_of_folder


def listed(*paths: str, **options: bool | str) -> list[tuple[str, str | None]]:
    listing = listing_of_folder(Found(list(paths)), **options)  # type: ignore[arg-type]
    return [
        (entry.split, listing.classes[entry.label] if entry.label >= 0 else None)
        for entry in listing.entries
    ]


def test_first_folder_is_the_class() -> None:
    assert listed("run/a.mp4", "walk/deep/b.mp4", "c.mp4") == [
        ("train", "run"),
        ("train", "walk"),
        ("train", None),
    ]


def test_one_class_however_its_accents_are_spelt() -> None:
    listing = listing_of_folder(Found(["caf\u00e9/a.mp4", "cafe\u0301/b.mp4"]))
    assert listing.classes == ("caf\u00e9",)
    assert [entry.path for entry in listing.entries] == ["caf\u00e9/a.mp4", "cafe\u0301/b.mp4"]


def test_without_classes() -> None:
    assert listed("run/a.mp4", with_classes=False) == [("train", None)]


def test_split_is_given() -> None:
    assert listed("run/a.mp4", split="val") == [("val", "run")]


def test_topmost_folders_of_split_names_are_splits() -> None:
    paths = ("train_256/run/a.mp4", "val/run/b.mp4", "validation/walk/c.mp4", "test/d.mp4")
    assert listed(*paths) == [("train", "run"), ("val", "run"), ("val", "walk"), ("test", None)]


def test_a_class_that_is_called_test_is_a_class() -> None:
    assert listed("test/a.mp4", "run/b.mp4") == [("train", "test"), ("train", "run")]
