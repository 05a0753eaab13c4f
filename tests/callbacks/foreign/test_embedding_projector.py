"""Pictures of features, as files and in loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_modules import MODULES, make_loader, make_trainer
from PIL import Image

from vclr_lightning.callbacks import EmbeddingProjector
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Logger


class Dashboard(Logger):
    """Takes pictures as W&B does, and embeddings as TensorBoard does."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken
        self.taken: dict[str, Any] = {}

    name = version = "0"  # type: ignore[assignment]

    @property
    def experiment(self) -> Any:
        return self

    def log_metrics(self, metrics: Any, step: Any = None) -> None: ...

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def log_image(self, key: str, images: list[Any]) -> None:
        if self.broken:
            raise ConnectionError("no network")
        self.taken[key] = np.asarray(images[0])

    def add_embedding(self, mat: Any, *, metadata: Any, tag: str, global_step: int) -> None:
        self.taken[tag, global_step] = (mat, metadata)


@pytest.mark.parametrize("kind", MODULES)
def test_pictures(kind: str, tmp_path: Path) -> None:
    dashboard = Dashboard()
    projector = EmbeddingProjector(
        features=["encoder.0", "encoder"], samples=12, every_n_epochs=2, directory=tmp_path
    )
    trainer = make_trainer(projector, max_epochs=3, logger=dashboard)
    trainer.fit(MODULES[kind](), make_loader("plain", kind))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"embedding-{name}-{epoch:04d}.png" for name in ("encoder.0", "encoder") for epoch in (2, 3)
    }
    picture = np.asarray(Image.open(tmp_path / "embedding-encoder-0003.png"))
    assert np.array_equal(picture, dashboard.taken["embedding/encoder"])
    features, labels = dashboard.taken["embedding/encoder", trainer.global_step]
    assert features.shape == (12, 8)
    assert set(labels) == ({0, 1, 2} if kind == "classifier" else {-1})
    colours = {tuple(c) for c in picture.reshape(-1, picture.shape[-1])}
    assert len(colours) > 10


def test_a_logger_that_fails_is_a_warning(tmp_path: Path, caplog: Any) -> None:
    projector = EmbeddingProjector(labels=False, directory=tmp_path)
    trainer = make_trainer(projector, max_epochs=1, logger=Dashboard(broken=True))
    trainer.fit(MODULES["classifier"](), make_loader("plain", "classifier"))
    assert "Dashboard could not log the embedding: no network" in caplog.text
    assert (tmp_path / "embedding-encoder-0001.png").exists()


def test_wrong_values_are_named() -> None:
    with pytest.raises(UserError, match="samples=1 and every_n_epochs=5"):
        EmbeddingProjector(samples=1)
