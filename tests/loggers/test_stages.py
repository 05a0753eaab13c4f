"""What stages without training log, and the evaluations of a suite within theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vclr_lightning.loggers.wandb import WandbLogger
from vclr_lightning.models import TinyBackbone, export_backbone

Main = Callable[..., SimpleNamespace]
Sessions = Callable[[Path], list[Any]]

OFFLINE = ["logger=wandb", "logger.wandb.offline=true"]


@pytest.fixture
def frozen(video_folder: Path, tmp_path: Path) -> list[str]:
    weights = export_backbone(TinyBackbone(width=4), tmp_path / "a.backbone.safetensors")
    return [
        *(f"ckpt={weights}", f"data.root={video_folder}", "data.num_workers=0"),
        *("data.holdout=0.34", "image_size=32", "trainer=cpu", "name=a"),
    ]


def media(found: Any, name: str) -> Any:
    (value,) = found.rows(name).values()
    return value


def test_the_parts_of_an_evaluation_are_in_its_run(
    main: Main, frozen: list[str], sessions: Sessions
) -> None:
    done = main(*frozen, *OFFLINE, "stage=evaluate", "features.num_frames=4", "suite.knn=null",
                "name=parts")  # fmt: skip
    assert done.code == 0, done.err
    (found,) = sessions(Path("outputs/evaluate/parts"))
    assert (found.run.job_type, found.run.run_group) == ("evaluate", "")
    assert found.config["stage"] == "evaluate"
    assert (found.summary["state"], found.exit_code) == ("finished", 0)
    assert 0 <= found.summary["test/linear_probe/top1"] <= 1
    assert 0 <= found.summary["test/retrieval/r1"] <= 1
    queries = media(found, "test/retrieval/Queries and their nearest training videos")
    assert queries["_type"] == "images/separated"
    assert queries["count"] >= 4
    columns = media(found, "test/linear_probe/predictions")
    assert columns["_type"] == "table-file"
    assert columns["nrows"] >= 4  # test videos
    assert media(found, "test/linear_probe/confusion")["ncols"] == 4
    assert "test/linear_probe/Confusion matrix, chart_table" in {
        name for row in found.history for name in row
    }
    steps = {row["_step"] for row in found.history}
    assert steps == {0}  # no row of its own for each


def test_grad_cam_is_a_video_even_where_a_table_fails(
    main: Main, frozen: list[str], sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(WandbLogger, "log_table", fail)
    done = main(*frozen, *OFFLINE, "stage=gradcam", "stage.run.count=2", "stage.run.passes=2",
                "stage.run.size=32")  # fmt: skip
    assert done.code == 0, done.err
    folder = Path("outputs/gradcam/a")
    (found,) = sessions(folder)
    films = media(found, "test/Heat maps, films")
    assert (films["_type"], films["count"]) == ("videos", 2)
    stored = sorted(folder.glob("wandb/offline-run-*/files/media/videos/test/*.mp4"))
    assert {film.read_bytes() for film in stored} == {f.read_bytes() for f in folder.glob("*.mp4")}
    assert found.summary["state"] == "finished"
    log = (folder / "train.log").read_text()
    assert log.count("logger.wandb fails in fail (ConnectionError: no route to host)") == 1
