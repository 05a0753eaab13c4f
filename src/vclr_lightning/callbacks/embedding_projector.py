"""Pictures of the features of the last training samples, and their projection in a dashboard."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.callbacks.batch_labels import Labels, find_labels
from vclr_lightning.callbacks.epoch_ends import EpochEnds
from vclr_lightning.callbacks.feature_callback import FeatureCallback
from vclr_lightning.callbacks.feature_source import Features, Views
from vclr_lightning.callbacks.recent_rows import RecentRows
from vclr_lightning.core.distributed import failing_together
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.functional.embedding import principal_components
from vclr_lightning.results.svg import Drawn, png

logger = logging.getLogger(__name__)

_LABELS = ""  # their name among the rows of the layers
_LISTED = 10  # classes in the legend


class EmbeddingProjector(FeatureCallback):
    """Draws the first two principal components of the features of the last training samples.

    After some epochs, a PNG for each layer is written, coloured by class where batches have labels,
    and logged to each logger: as a picture where it has ``log_image`` (W&B), and to TensorBoard's
    projector where its experiment has ``add_embedding``. Features are those of the training steps,
    l2-normalised, averaged over the views of a sample. What a logger cannot take is a warning.

    Args:
        features, views: see :class:`~vclr_lightning.callbacks.feature_source.FeatureSource`.
        samples: number of the last samples, over all ranks; part of checkpoints.
        every_n_epochs: epochs between two pictures, and after the last.
        directory: folder of ``embedding-LAYER-EPOCH.png``; ``None``: ``embeddings`` in the
            trainer's ``default_root_dir``.
        labels: see :class:`~vclr_lightning.callbacks.online_probe.OnlineProbe`; ``False``: none.
        name: of files and pictures instead of ``embedding``, where there are several projectors.

    Raises:
        UserError: an argument is out of range, or there is no such submodule.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> projector = EmbeddingProjector(features="encoder", directory="pictures")
        >>> trainer = Trainer(callbacks=[projector], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        *,
        features: Features | None = None,
        views: Views = "outside",
        samples: int = 1024,
        every_n_epochs: int = 5,
        directory: str | Path | None = None,
        labels: Labels | bool = None,
        name: str | None = None,
    ) -> None:
        super().__init__(features=features, views=views, name=name, usual="embedding")
        if samples < 2 or every_n_epochs < 1:
            raise UserError(
                f"samples={samples} and every_n_epochs={every_n_epochs} of the projector must be 2 "
                "or more, and 1 or more"
            )
        self.due, self.labels = EpochEnds(every_n_epochs=every_n_epochs), labels
        self.directory = None if directory is None else Path(directory)
        self.recent = RecentRows(samples)

    def on_features(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        features: dict[str, Tensor],
        batch: Any,
    ) -> None:
        rows = {name: x.mean(dim=1) for name, x in features.items()}
        labels = None if isinstance(self.labels, bool) else find_labels(batch, self.labels)
        if labels is None:
            labels = torch.full((len(next(iter(rows.values()))),), -1)
        self.recent.add({**rows, _LABELS: labels.to(next(iter(rows.values())).device)})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not self.due(trainer):
            return
        found = self.recent.gathered()
        with failing_together():
            if trainer.is_global_zero:
                for name in self.source.names if len(found.get(_LABELS, ())) > 1 else ():
                    self._show(trainer, name, found[name].cpu(), found[_LABELS].cpu(), epoch)

    def _show(
        self, trainer: Trainer, name: str, features: Tensor, labels: Tensor, epoch: int
    ) -> None:
        finite = features.isfinite().all(dim=1)
        features, labels = features[finite], labels[finite]
        if len(labels) < 2:
            return
        picture = picture_of_embedding(features, labels, title=f"{name}, epoch {epoch}")
        folder = self.directory or Path(trainer.default_root_dir) / "embeddings"
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{self.name}-{name}-{epoch:04d}.png") as file:
            file.write(picture)
        for sink in trainer.loggers:
            try:
                _log(sink, f"{self.name}/{name}", picture, features, labels, trainer.global_step)
            except Exception as error:  # whatever a service raises
                what = type(sink).__name__
                logger.warning("%s could not log the embedding: %s", what, error)

    def state_dict(self) -> dict[str, Any]:
        return self.recent.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.recent.load_state_dict(state_dict)


def picture_of_embedding(features: Tensor, labels: Tensor, *, title: str) -> bytes:
    """Return a PNG of the first two principal components of l2-normalised features.

    Args:
        features: one row per sample.
        labels: classes, which are colours; negative for none.
        title: of the picture.

    Shape: ``(n, F)`` and ``(n,)``

    Example:
        >>> picture_of_embedding(torch.eye(3), torch.arange(3), title="three")[:4]
        b'\\x89PNG'
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    points, shares = principal_components(torch.nn.functional.normalize(features.float(), dim=1))
    drawing = Figure(figsize=(4.5, 4.0), layout="constrained")
    axes = drawing.subplots()
    classes = torch.unique(labels).tolist()
    colours = colormaps["tab20"]
    for i, one in enumerate(classes):
        some = points[labels == one]
        colour = "#98a1a6" if one < 0 else colours(i % colours.N)
        axes.scatter(some[:, 0], some[:, 1], s=6, linewidths=0, color=[colour], label=str(one))
    if 1 < len(classes) <= _LISTED:
        axes.legend(title="class", markerscale=2)
    axes.set_title(title)
    axes.set_xlabel(f"component 1 ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"component 2 ({shares[1]:.0%})")
    return png(Drawn(title, drawing))


def _log(sink: Any, key: str, picture: bytes, features: Tensor, labels: Tensor, step: int) -> None:
    if callable(log_image := getattr(sink, "log_image", None)):
        from PIL import Image

        log_image(key=key, images=[Image.open(io.BytesIO(picture))])
    add_embedding = getattr(getattr(sink, "experiment", None), "add_embedding", None)
    if callable(add_embedding):
        add_embedding(features, metadata=labels.tolist(), tag=key, global_step=step)
