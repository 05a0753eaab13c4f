from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
import wandb

from vclr_lightning.loggers.wandb import WandbLogger
from vclr_lightning.results import Chart, Charts, Result, Scalar, Table, log_result


def _times_written(folder: Path, value: float) -> int:
    files = (folder / "wandb").glob("offline-run-*/*.wandb")
    return sum(file.read_bytes().count(str(value).encode()) for file in files)


def test_a_continued_run_is_one_run_with_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    ids = []
    for steps in (range(5), range(3, 8)):  # the checkpoint was of step 3
        logger = WandbLogger(directory=tmp_path, offline=True)
        ids.append(logger.experiment.id)
        for step in steps:
            logger.log_metrics({"loss": 7351.5 + step}, step=step)
            logger.log_metrics({"r1": 0.25}, step=step)
        wandb.finish()
    assert ids[0] == ids[1]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    for _ in range(100):  # W&B's own process may still be writing
        written = [_times_written(tmp_path, 7351.5 + step) for step in range(8)]
        if written[-1]:
            break
        time.sleep(0.1)
    once = written[0]
    # The last step before the stop may not have been whole; it is there again.
    assert written == [once, once, once, once, 2 * once, once, once, once]


def test_a_run_in_the_same_process_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
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
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", key := secrets.token_hex(20))
    logger = WandbLogger(directory=tmp_path, offline=True)
    logger.log_metrics({"loss": 1.0}, step=0)
    wandb.finish()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes()


def test_results_become_a_table_images_and_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
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
