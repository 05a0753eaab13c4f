"""Folders of extracted frames."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import ImageFolderReader
from vclr_lightning.data.readers.image_folder import frame_pattern


def _fill(folder: Path, template: str, numbers: range) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(_picture(number)).save(folder / template.format(number))
    return folder


def _picture(number: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((45, 31), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("template", ["img_{:05d}.jpg", "{:d}.png", "f{}.jpeg", "{0:03d}.png"])
def test_each_rank_is_its_picture(tmp_path: Path, template: str, start: int) -> None:
    folder = _fill(tmp_path / "video", template, range(start, start + 12))
    (folder / "notes.txt").write_text("not a frame")
    with ImageFolderReader(template=template).open(folder) as opened:
        assert opened.num_frames == 12
        indices = [11, 0, 5, 0]
        frames = opened.read(indices)
    for index, frame in zip(indices, frames, strict=True):
        difference = np.abs(frame.astype(int) - _picture(start + index))
        assert difference.mean() < (1e-9 if template.endswith(".png") else 8)
    assert frames[1] is frames[3]


def test_gray_and_palette_come_as_rgb(tmp_path: Path) -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(gray).save(tmp_path / "0.png")
    Image.fromarray(np.stack([gray] * 3, -1)).quantize(8).save(tmp_path / "1.png")
    with ImageFolderReader(template="{}.png").open(tmp_path) as opened:
        first, second = opened.read([0, 1])
    np.testing.assert_array_equal(first, np.stack([gray] * 3, -1))
    expected = np.asarray(Image.open(tmp_path / "1.png").convert("RGB"))
    np.testing.assert_array_equal(second, expected)


def test_a_known_count_spares_listing(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "video", "{:d}.jpg", range(1, 6))
    with ImageFolderReader(template="{:d}.jpg").open(folder, num_frames=5) as opened:
        assert opened.num_frames == 5
        assert len(opened.read([4])) == 1


def test_a_wrong_known_count_is_put_right(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "video", "{:d}.jpg", range(1, 6))
    with ImageFolderReader(template="{:d}.jpg").open(folder, num_frames=9) as opened:
        with pytest.raises(FrameCountChangedError) as info:
            opened.read([0, 7])
        assert info.value.actual == opened.num_frames == 5
        assert len(opened.read([4])) == 1


def test_a_gap_is_named(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "video", "img_{:05d}.jpg", range(1, 9))
    (folder / "img_00004.jpg").unlink()
    with pytest.raises(VideoError, match=r"img_00004\.jpg is missing"):
        ImageFolderReader().open(folder).__enter__()
    with (
        ImageFolderReader().open(folder, num_frames=8) as opened,
        pytest.raises(VideoError, match=r"img_00004\.jpg is missing"),
    ):
        opened.read([3])


def test_a_late_start_is_refused(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "video", "img_{:05d}.jpg", range(7, 9))
    with pytest.raises(VideoError, match=r"the first picture is img_00007\.jpg"):
        ImageFolderReader().open(folder).__enter__()


@pytest.mark.parametrize("known", [None, 3])
def test_no_pictures(tmp_path: Path, known: int | None) -> None:
    reader = ImageFolderReader()
    with (
        pytest.raises(VideoError, match=r"no picture in the folder is named like img_\{:05d\}"),
        reader.open(tmp_path, num_frames=known) as opened,
    ):
        opened.read([0])


def test_a_file_and_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(VideoError, match="a file, not a folder"):
        ImageFolderReader().open(tmp_path / "a").__enter__()
    with pytest.raises(VideoError, match="cannot be listed"):
        ImageFolderReader().open(tmp_path / "b").__enter__()


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "video", "img_{:05d}.jpg", range(1, 4))
    (folder / "img_00002.jpg").write_bytes(b"no picture")
    (folder / "img_00003.jpg").write_bytes(b"")
    with ImageFolderReader().open(folder) as opened:
        for index in (1, 2):
            with pytest.raises(VideoError, match=rf"img_0000{index + 1}\.jpg cannot be decoded"):
                opened.read([index])


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "0.png")
    with (
        ImageFolderReader(template="{}.png").open(tmp_path) as opened,
        pytest.raises(VideoError, match="more than 8 bits"),
    ):
        opened.read([0])


@pytest.mark.parametrize("indices", [[-1], [3]])
def test_an_index_out_of_range_is_the_callers_mistake(tmp_path: Path, indices: list[int]) -> None:
    folder = _fill(tmp_path / "video", "img_{:05d}.jpg", range(3))
    with (
        ImageFolderReader().open(folder) as opened,
        pytest.raises(IndexError, match=r"0\.\.2"),
    ):
        opened.read(indices)


@pytest.mark.parametrize("template", ["img.jpg", "{:d}_{:d}.jpg", "a/{:d}.jpg", "{x}.jpg", "{:"])
def test_a_template_holds_one_number(template: str) -> None:
    with pytest.raises(UserError, match="one number"):
        ImageFolderReader(template=template)


def test_dots_of_a_template_are_dots() -> None:
    assert frame_pattern("a.{:03d}.jpg").fullmatch("a.012.jpg")
    assert not frame_pattern("a.{:03d}.jpg").fullmatch("aX012.jpg")


def test_reader_is_picklable(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "video", "{:d}.jpg", range(2))
    reader = pickle.loads(pickle.dumps(ImageFolderReader(template="{:d}.jpg")))
    with reader.open(folder) as opened:
        assert opened.num_frames == 2
