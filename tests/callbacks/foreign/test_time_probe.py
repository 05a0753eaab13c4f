"""What the time probe says of networks that use time, and of one that cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from foreign_modules import Classifier, make_loader, make_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vclr_lightning.callbacks import TimeProbe
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.functional.order import sample_shuffle

VIDEOS, FRAMES = 12, 5


def clip(video: int) -> Tensor:
    """Brightness rises in clips of class 0 and falls in those of class 1; the level is noise."""
    rng = np.random.default_rng(video)
    ramp = np.linspace(0, 1, FRAMES) * (1 if video % 2 == 0 else -1)
    values = rng.normal() + ramp + 0.05 * rng.normal(size=FRAMES)
    return torch.from_numpy(values).float().view(1, FRAMES, 1, 1).repeat(1, 1, 2, 2)


def videos(*, labels: bool = True, clips: int = 0) -> DataLoader[Any]:
    rows = [
        {
            "frames": clip(i)
            if not clips
            else torch.stack([clip(i + 100 * c) for c in range(clips)]),
            "video_id": i,
            "group_id": i // 3,
            **({"label": i % 2} if labels else {}),
        }
        for i in range(VIDEOS)
    ]
    return DataLoader(rows, batch_size=5)  # type: ignore[arg-type]


class Differences(nn.Module):
    """Features of how the brightness changes."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(1, 3, 4)).diff(dim=1)


class Means(nn.Module):
    """The mean over time, and its square."""

    def forward(self, clips: Tensor) -> Tensor:
        mean = clips.mean(dim=(1, 2, 3, 4))
        return torch.stack([mean, mean**2], dim=1)


def probed(encode: Any, **options: Any) -> dict[str, float]:
    probe = TimeProbe(encode=encode, held_out=lambda trainer: videos(), **options)
    trainer = make_trainer(probe, max_epochs=1)
    trainer.fit(Classifier(), make_loader("sequential", "classifier"))
    found = trainer.callback_metrics
    return {k.removeprefix("probe/time/"): float(v) for k, v in found.items() if "time" in k}


def expected(encode: Any) -> dict[str, float]:
    clips = [clip(i)[0, :, 0, 0].numpy() for i in range(VIDEOS)]
    changes = {
        "normal": lambda i, x: x,
        "shuffled": lambda i, x: x[sample_shuffle(FRAMES, numpy_generator(0, "time", i))],
        "reversed": lambda i, x: x[::-1],
        "frozen": lambda i, x: np.full(FRAMES, x[2]),
    }

    def features(x: np.ndarray) -> np.ndarray:
        return encode(torch.from_numpy(x.copy()).view(1, 1, -1, 1, 1)).numpy()[0]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / norms) if norms else 0.0

    found, gallery = {}, [features(x) for x in clips]
    for name, change in changes.items():
        rows = [features(change(i, x)) for i, x in enumerate(clips)]
        hits = []
        for i, row in enumerate(rows):
            others = [j for j in range(VIDEOS) if j // 3 != i // 3]
            nearest = max(others, key=lambda j: cosine(row, gallery[j]))
            hits.append(nearest % 2 == i % 2)
        found[f"{name}/val_top1"] = float(np.mean(hits))
        if name != "normal":
            pairs = zip(rows, gallery, strict=True)
            found[f"{name}/similarity"] = float(np.mean([cosine(a, b) for a, b in pairs]))
    return found


def test_a_network_that_uses_time() -> None:
    found = probed(Differences())
    assert found == pytest.approx(expected(Differences()), abs=1e-5)
    assert found["normal/val_top1"] == 1
    assert found["reversed/val_top1"] == 0
    assert found["reversed/similarity"] < -0.9
    assert found == probed(Differences())  # drawn alike


def test_a_network_that_cannot() -> None:
    found = probed(Means())
    for change in ("shuffled", "reversed"):
        assert found[f"{change}/val_top1"] == found["normal/val_top1"]
        assert found[f"{change}/similarity"] == pytest.approx(1)
    assert found["frozen/similarity"] < 1


def test_in_the_validation_loop_without_labels_and_with_several_clips() -> None:
    class Encoding(Classifier):
        encode = staticmethod(Differences())

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

    trainer = make_trainer(TimeProbe(), max_epochs=1)
    loader = make_loader("plain", "classifier")
    trainer.fit(Encoding(), loader, videos(labels=False, clips=2))
    found = {name for name in trainer.callback_metrics if "time" in name}
    assert found == {
        f"probe/time/{change}/similarity" for change in ("shuffled", "reversed", "frozen")
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 0}, "k=0"),
        ({"clips": lambda batch: batch["frames"][:, :, :1]}, "these have one"),
        ({"clips": lambda batch: batch["label"]}, r"finds no clips \(B, C, T, H, W\)"),
        ({"labels": "class"}, "finds no classes"),
    ],
)
def test_what_is_missing_is_said(options: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        probed(Means(), **options)
