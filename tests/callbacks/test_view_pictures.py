"""Pictures of views: every pixel at its place, numbers of the order, no cost without a logger."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vclr_lightning.callbacks import ViewPictures
from vclr_lightning.core.errors import UserError


class Pictures:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def log_image(self, **call: Any) -> None:
        self.calls.append(call)


def _trainer(*loggers: Any, epoch: int = 0, first: bool = True) -> Any:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7))
    return SimpleNamespace(
        loggers=loggers, current_epoch=epoch, is_global_zero=first, fit_loop=loop
    )


def _batch() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    views = {
        name: torch.randint(0, 256, (2, n, 3, t, 20, 20), dtype=torch.uint8, generator=draw)
        for name, n, t in (("anchor", 3, 1), ("second", 1, 3), ("none", 0, 1))
    }
    order = torch.tensor([[2, 0, 1], [0, 1, 2]])
    return {"views": views, "targets": {"anchor_order": order}, "video_id": torch.tensor([5, 9])}


def test_each_view_is_a_row_of_middle_frames_and_the_order_is_numbered() -> None:
    sink, batch = Pictures(), _batch()
    ViewPictures(videos=9).on_train_batch_start(_trainer(object(), sink), None, batch, 0)  # type: ignore[arg-type]
    (call,) = sink.calls
    assert (call["key"], call["step"], len(call["images"])) == ("train/views", 7, 2)
    assert call["caption"] == [
        "video 5, anchor shuffled: 3 1 2",
        "video 9, anchor in order: 1 2 3",
    ]
    image = call["images"][1]
    assert image.shape == (36 + 6 + 36, 3 * 20 + 2 * 6, 3)
    for clip in range(3):  # below the row's name; the number covers the upper left corner
        frame = batch["views"]["anchor"][1, clip, :, 0].permute(1, 2, 0).numpy()
        drawn = image[16:36, 26 * clip : 26 * clip + 20]
        assert np.array_equal(drawn[16:], frame[16:])
        assert not np.array_equal(drawn[:14, :10], frame[:14, :10])
    middle = batch["views"]["second"][1, 0, :, 1].permute(1, 2, 0).numpy()
    assert np.array_equal(image[36 + 6 + 16 :, :20], middle)


def test_only_where_and_when_it_is_wanted() -> None:
    sink, pictures = Pictures(), ViewPictures(every_n_epochs=2)
    broken: Any = {"views": {"anchor": None}}  # not looked at
    for trainer, index in (
        (_trainer(object()), 0),
        (_trainer(sink, epoch=1), 0),
        (_trainer(sink), 1),
        (_trainer(sink, first=False), 0),
    ):
        pictures.on_train_batch_start(trainer, None, broken, index)  # type: ignore[arg-type]
    pictures.on_train_batch_start(_trainer(sink), None, [torch.zeros(2)], 0)  # type: ignore[arg-type]
    assert sink.calls == []
    pictures.on_train_batch_start(_trainer(sink, epoch=4), None, _batch(), 0)  # type: ignore[arg-type]
    assert len(sink.calls) == 1
    with pytest.raises(UserError, match="videos=0"):
        ViewPictures(videos=0)


def test_another_projects_normalised_crops_are_scaled_and_reduced() -> None:
    crops = torch.linspace(-2, 2, 64).expand(2, 2, 1, 1, 64, 64)
    sink = Pictures()
    pictures = ViewPictures(views=lambda batch: {"crops": batch[0]}, size=32)
    pictures.on_train_batch_start(_trainer(sink), None, (crops, None), 0)  # type: ignore[arg-type]
    image = sink.calls[0]["images"][0]
    assert image.shape == (16 + 32, 2 * 32 + 6, 3)
    row = image[20, :32, 0].astype(int)
    assert (np.diff(row) > 0).all()
    assert row[0] <= 4
    assert row[-1] >= 251
