from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from vclr_lightning.core.errors import UserError
from vclr_lightning.loggers.wandb import WandbLogger
from vclr_lightning.loggers.wandb_files import last_written_step
from vclr_lightning.results import Chart, Charts, Result, Scalar, Table, log_result

Sessions = Callable[[Path], list[Any]]


def test_a_continued_run_is_one_run_with_each_step_once(tmp_path: Path, sessions: Sessions) -> None:
    for steps in (range(5), range(3, 8)):  # the checkpoint was of step 3
        logger = WandbLogger(directory=tmp_path, offline=True)
        for step in steps:
            logger.log_metrics({"loss": 0.5 + step}, step=step)
            logger.log_metrics({"r1": 0.25}, step=step)
        logger.log_metrics({"test": 1.0})  # without a step: at the last one
        logger.conclude("finished")
    first, second = sessions(tmp_path)
    assert first.run.run_id == second.run.run_id
    assert [*first.rows("loss")] == [0, 1, 2, 3, 4]
    # The last step before the stop may not have been whole; it is there again.
    assert second.rows("loss") == {step: 0.5 + step for step in (4, 5, 6, 7)}
    assert ([*first.rows("test")], [*second.rows("test")]) == ([4], [7])


def test_a_run_in_the_same_process_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (WandbLogger(directory=tmp_path / name, offline=True) for name in "ab")
    first.log_metrics({"loss": 1.0}, step=0)  # and not finished, as a sweep's job leaves it
    second.log_metrics({"loss": 2.0}, step=0)
    assert first.experiment.id != second.experiment.id
    wandb.finish()


@pytest.mark.parametrize("damaged", [b"", bytes(9), b"\xff\xfe"])
def test_a_damaged_id_is_replaced(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "wandb_id").write_bytes(damaged)
    first, again = (WandbLogger(directory=tmp_path, offline=True).version for _ in range(2))
    assert first == again == (tmp_path / "wandb_id").read_text().strip()


def test_the_key_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key := secrets.token_hex(20))
    logger = WandbLogger(directory=tmp_path, offline=True)
    logger.log_metrics({"loss": 1.0}, step=0)
    wandb.finish()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes()


def test_results_become_a_table_images_and_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = WandbLogger(directory=tmp_path, offline=True)
    chart = Chart(title="loss", lines={"loss": [(0, 1.0), (1, 0.5)]})
    table = Table(title="Classes", columns=["class", "videos"], rows=[["run", 3]])
    content = [table, Charts(title="Curves", charts=[chart])]
    log_result(Result(title="", scalars=[Scalar("top1", 0.5)], content=content), [logger])
    assert logger.experiment.summary["test/top1"] == 0.5
    media = next((tmp_path / "wandb").glob("offline-run-*/files/media"))
    wandb.finish()
    assert [file.suffix for file in media.rglob("*.*")].count(".png") == 1
    assert list(media.rglob("*.table.json"))
    assert "could not log" not in caplog.text


def test_the_direction_and_the_axis_of_metrics(tmp_path: Path, sessions: Sessions) -> None:
    own = {"mine/*": {"goal": "min", "axis": "epoch"}}
    logger = WandbLogger(directory=tmp_path, offline=True, metrics=own)
    logger.log_metrics({"mine/cost": 2.0, "val/knn_chance": 0.5, "epoch": 0}, step=0)
    logger.log_metrics({"mine/cost": 3.0, "perf/videos_per_s": 9.0, "epoch": 1}, step=5)
    logger.conclude("finished")
    (found,) = sessions(tmp_path)
    assert found.metrics["mine/cost"] == ("epoch", {"min", "last"})
    assert found.metrics["val/knn_chance"] == ("epoch", set())
    assert found.metrics["perf/videos_per_s"] == ("", {"max", "last"})
    assert found.summary["mine/cost"] == {"min": 2, "last": 3}
    assert found.rows("mine/cost") == {0: 2, 5: 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": {"a": {"goal": "up"}}}, r"metrics.a.goal=up must be max or min"),
        ({"metrics": {"a": {"axes": "step"}}}, "metrics.a has no axes"),
        ({"metrics": {"a": "max"}}, "metrics.a=max"),
        ({"artifacts": "all"}, "artifacts=all must be backbone, checkpoint or null"),
    ],
)
def test_impossible_settings_are_one_sentence(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        WandbLogger(directory=tmp_path, offline=True, **options)


def test_without_an_account_it_says_so_and_without_a_network_it_writes_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: Sessions
) -> None:
    logger = WandbLogger(directory=tmp_path)
    with pytest.raises(UserError, match="wandb login"):
        logger.log_metrics({"loss": 1.0}, step=0)
    begin = wandb.init

    def init(*args: Any, mode: str | None = None, **kwargs: Any) -> Any:
        if mode is None:
            raise wandb.errors.CommError(answer)
        return begin(*args, mode=mode, **kwargs)

    monkeypatch.setattr(wandb, "init", init)
    answer = "returned error 403: permission denied"
    with pytest.raises(UserError, match=r"refuses the run.*permission denied.*entity"):
        logger.log_metrics({"loss": 1.0}, step=0)
    answer = "timed out"
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.conclude("finished")
    (found,) = sessions(tmp_path)
    assert found.rows("loss") == {0: 1}


def test_artifacts_have_aliases(tmp_path: Path, sessions: Sessions) -> None:
    for name in ("last", "best"):
        (tmp_path / f"{name}.backbone.safetensors").write_text(name)
    (tmp_path / "config.yaml").write_text("seed: 0")
    for artifacts in (None, "backbone", "checkpoint"):
        logger = WandbLogger(directory=tmp_path, offline=True, artifacts=artifacts)
        logger.log_metrics({"loss": 1.0}, step=0)
        logger.conclude("finished")
        time.sleep(1.01)  # folders are named by the second
    without, backbone, checkpoint = sessions(tmp_path)
    assert without.artifacts == checkpoint.artifacts == []
    aliases = {tuple(sorted({*one.aliases} - {"latest"})) for one in backbone.artifacts}
    assert aliases == {("last",), ("best",)}
    files = [{entry.path for entry in one.manifest.contents} for one in backbone.artifacts]
    assert {"best.backbone.safetensors", "config.yaml"} in files


def test_an_agents_run_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    given: dict[str, Any] = {}
    run = SimpleNamespace(
        id="r1", step=0, settings=SimpleNamespace(mode="online"), summary={}, finish=lambda **_: 0
    )
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or run)
    logger = WandbLogger(directory=tmp_path, name="mine", entity="me")
    assert logger.experiment is run
    assert not {"id", "project", "entity"} & given.keys()  # W&B warns about each
    assert (given["name"], given["resume"], logger.version) == (None, "allow", "r1")
    assert not (tmp_path / "wandb_id").exists()


def test_steps_that_were_not_written_are_sent_again(tmp_path: Path, sessions: Sessions) -> None:
    logger = WandbLogger(directory=tmp_path, offline=True)
    for step in range(400):  # of several blocks
        logger.log_metrics({"loss": 0.5}, step=step)
    logger.conclude("finished")
    (found,) = sessions(tmp_path)
    assert len(found.history) == 400
    assert last_written_step(tmp_path / "wandb") == 399
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size * 2 // 3)  # as after a kill
    (found,) = sessions(tmp_path)
    last = max(found.rows("loss"))
    assert 50 < last == last_written_step(tmp_path / "wandb") < 380
    time.sleep(1.01)
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,loss\n" + "".join(f"{step},0,0.5\n" for step in range(400))
    )
    logger = WandbLogger(directory=tmp_path, offline=True)
    logger.rewind(390)  # the checkpoint's
    logger.log_metrics({"loss": 0.25}, step=390)
    logger.conclude("finished")
    _, again = sessions(tmp_path)
    assert [*again.rows("loss")] == list(range(last, 391))


def test_a_run_that_ctrl_c_stops_is_killed_and_no_preempted_one(
    tmp_path: Path, sessions: Sessions
) -> None:
    logger = WandbLogger(directory=tmp_path, offline=True)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.conclude("stopped", signum=2)
    (found,) = sessions(tmp_path)
    assert (found.summary["state"], found.exit_code, found.preempting) == ("stopped", 255, False)
