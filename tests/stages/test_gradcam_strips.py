"""Heat over pictures: what is cold is grey, what is hot is bright; strips and films."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from vclr_lightning.functional.grad_cam import overlay
from vclr_lightning.stages.gradcam.strips import film, strip


def test_heat_gets_lighter_and_cold_is_the_grey_picture() -> None:
    ramp = overlay(torch.zeros(3, 1, 101, dtype=torch.uint8), torch.linspace(0, 1, 101)[None])
    lightness = torch.tensor([0.299, 0.587, 0.114]) @ ramp[:, 0].float()
    assert (lightness.diff() > -0.6).all()  # but for rounding
    assert lightness[-1] > lightness[0] + 100
    picture = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8)
    cold, hot = (overlay(picture, torch.full((4, 4), value)) for value in (0.0, 1.0))
    assert torch.equal(cold[0], cold[1])
    assert torch.equal(cold[1], cold[2])
    grey = torch.from_numpy(
        np.array(Image.fromarray(picture.permute(1, 2, 0).numpy()).convert("L"))
    )
    assert (cold[0].int() - grey.int()).abs().max() <= 1
    assert (hot[0] > hot[2]).all()


def test_strip_and_film_hold_every_picture_at_its_place() -> None:
    pictures = torch.randint(0, 256, (2, 3, 3, 33, 33), dtype=torch.uint8)
    long = "a/very/long/folder/of/checkpoints/that/has/no/spaces/last"
    drawn = strip({"frames": pictures, long: pictures}, ["one", "two"])
    found = 0
    for top in range(20, drawn.shape[0] - 32):
        for left in range(drawn.shape[1] - 32):
            corner = drawn[top, left].tolist()
            for picture in pictures.flatten(0, 1):
                if corner == picture[:, 0, 0].tolist():
                    whole = drawn[top : top + 33, left : left + 33]
                    found += np.array_equal(whole, picture.permute(1, 2, 0).numpy())
    assert found == 2 * 6

    frames = film({"frames": pictures.flatten(0, 1), long: pictures.flatten(0, 1)})
    assert frames.shape[0] == 6
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    for frame, picture in zip(frames, pictures.flatten(0, 1), strict=True):
        assert np.array_equal(frame[20:53, :33], picture.permute(1, 2, 0).numpy())
        assert np.array_equal(frame[20:53, 36:69], picture.permute(1, 2, 0).numpy())
