"""Callbacks for any LightningModule: ``from vclr_lightning.callbacks import Throughput``.

Importing the package costs nothing; each class is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint as ResumableCheckpoint
    from vclr_lightning.callbacks.checkpoint_io import AtomicCheckpointIO as AtomicCheckpointIO
    from vclr_lightning.callbacks.collapse_monitor import CollapseMonitor as CollapseMonitor
    from vclr_lightning.callbacks.embedding_projector import (
        EmbeddingProjector as EmbeddingProjector,
    )
    from vclr_lightning.callbacks.graceful_stop import GracefulStop as GracefulStop
    from vclr_lightning.callbacks.gradient_conflict_monitor import (
        GradientConflict as GradientConflict,
    )
    from vclr_lightning.callbacks.held_out_accuracy import HeldOutAccuracy as HeldOutAccuracy
    from vclr_lightning.callbacks.momentum_copies import MomentumUpdate as MomentumUpdate
    from vclr_lightning.callbacks.non_finite import NonFiniteGuard as NonFiniteGuard
    from vclr_lightning.callbacks.non_finite import NonFiniteLossError as NonFiniteLossError
    from vclr_lightning.callbacks.online_evaluation import OnlineEvaluation as OnlineEvaluation
    from vclr_lightning.callbacks.online_knn import OnlineKNN as OnlineKNN
    from vclr_lightning.callbacks.online_linear import OnlineAttentiveProbe as OnlineAttentiveProbe
    from vclr_lightning.callbacks.online_linear import OnlineLinearProbe as OnlineLinearProbe
    from vclr_lightning.callbacks.progress import RunProgress as RunProgress
    from vclr_lightning.callbacks.queue_monitor import QueueMonitor as QueueMonitor
    from vclr_lightning.callbacks.rejections import RejectionWriter as RejectionWriter
    from vclr_lightning.callbacks.run_log import RunLog as RunLog
    from vclr_lightning.callbacks.throughput import Throughput as Throughput
    from vclr_lightning.callbacks.time_probe import TimeProbe as TimeProbe
    from vclr_lightning.callbacks.video_scores import VideoViews as VideoViews
    from vclr_lightning.callbacks.view_pictures import ViewPictures as ViewPictures

_FILES = {
    "AtomicCheckpointIO": "checkpoint_io",
    "CollapseMonitor": "collapse_monitor",
    "EmbeddingProjector": "embedding_projector",
    "GracefulStop": "graceful_stop",
    "GradientConflict": "gradient_conflict_monitor",
    "HeldOutAccuracy": "held_out_accuracy",
    "MomentumUpdate": "momentum_copies",
    "NonFiniteGuard": "non_finite",
    "NonFiniteLossError": "non_finite",
    "OnlineAttentiveProbe": "online_linear",
    "OnlineEvaluation": "online_evaluation",
    "OnlineKNN": "online_knn",
    "OnlineLinearProbe": "online_linear",
    "QueueMonitor": "queue_monitor",
    "RejectionWriter": "rejections",
    "ResumableCheckpoint": "checkpoint",
    "RunLog": "run_log",
    "RunProgress": "progress",
    "Throughput": "throughput",
    "TimeProbe": "time_probe",
    "VideoViews": "video_scores",
    "ViewPictures": "view_pictures",
}

__all__ = list(_FILES)


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FILES])
