"""MLflow in a local database: one run per folder, each step once, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vclr_lightning.core.errors import UserError

mlflow: Any = pytest.importorskip("mlflow", reason="MLflow is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # its libraries'

Main = Callable[..., SimpleNamespace]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store/mlflow.db"


def test_a_continued_run_is_one_run(tmp_path: Path, uri: str) -> None:
    from vclr_lightning.loggers.mlflow import MLflowLogger

    given = {"tracking_uri": uri, "group": "s", "tags": "num_segments=5"}
    for steps, state in ((range(5), "stopped"), (range(3, 8), "finished")):
        logger = MLflowLogger(directory=tmp_path / "run", **given)
        logger.log_hyperparams({"seed": 0, "optim": {"lr": 0.1 + (state == "finished")}})
        assert mlflow.MlflowClient(uri).get_run(logger.run_id).info.status == "RUNNING"
        for step in steps:
            logger.log_metrics({"loss": 0.5 + step}, step=step)
        logger.log_summary({"best": 0.5})
        logger.log_table("test/Classes", ["class"], [["run"]])
        logger.log_image("train/views", [np.zeros((4, 4, 3), np.uint8)], caption=["a"], step=0)
        logger.finalize("success")
        logger.conclude(state)
        ended = mlflow.MlflowClient(uri).get_run(logger.run_id).info.status
        assert ended == {"stopped": "KILLED", "finished": "FINISHED"}[state]
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vclr").experiment_id])
    assert run.data.params == {"seed": "0", "optim.lr": "0.1"}  # which MLflow never changes
    assert {k: run.data.tags[k] for k in ("group", "num_segments")} == {
        "group": "s",
        "num_segments": "5",
    }
    steps = [m.step for m in mlflow.MlflowClient(uri).get_metric_history(run.info.run_id, "loss")]
    assert sorted(steps) == [0, 1, 2, 3, 4, 4, 5, 6, 7]  # the last may not have been whole
    assert run.data.metrics["best"] == 0.5
    stored = {path.name for path in (tmp_path / "store" / "mlartifacts").rglob("*.*")}
    assert {"Classes.csv", "000.png"} <= stored


def test_a_wrong_uri_is_one_sentence(tmp_path: Path) -> None:
    from vclr_lightning.loggers.mlflow import MLflowLogger

    with pytest.raises(UserError, match="tracking_uri=nonsense://x cannot be used"):
        MLflowLogger(directory=tmp_path, tracking_uri="nonsense://x")


def test_a_training_logs(main: Main, tiny: list[str], uri: str) -> None:
    done = main(*tiny, "logger=mlflow", f"logger.mlflow.tracking_uri={uri}")
    assert done.code == 0, done.err
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vclr").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["num_segments"] == "3"
    assert run.data.params["choice.objective"] == "vclr"
    assert {"best", "val/instance_r1", "train/loss"} <= run.data.metrics.keys()
