from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from vclr_lightning.core.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:The .*dataloader. does not have many workers",
    "ignore:.*srun.*",
)

HOOKS = [
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
]


class Killed(BaseException):
    pass


class KillAt(Callback):
    """Ends the run in the given call of a hook, before anything else is done there."""

    def __init__(self, hook: str, call: int) -> None:
        self.calls = 0

        def kill(*args: Any) -> None:
            self.calls += 1
            if self.calls == call:
                raise Killed

        setattr(self, hook, kill)


def _final(folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
    names = ("last.ckpt", "best.ckpt")
    saved = {name: torch.load(folder / name, weights_only=True) for name in names}
    return saved, (folder / "metrics.csv").read_text()


class Clock:
    """Time as checkpoints see it: goes on when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        seen = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("vclr_lightning.callbacks.checkpoint_io.time", seen)


class Takes(Callback):
    """Makes every step take some seconds of a clock."""

    def __init__(self, clock: Clock, seconds: Callable[[], float]) -> None:
        self.clock, self.seconds = clock, seconds

    def on_train_batch_end(self, *args: Any) -> None:
        self.clock.now += self.seconds()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


@pytest.mark.parametrize(
    ("accumulate", "checkpoint"),
    [
        (1, {"min_minutes": 0}),
        (2, {"min_minutes": 0, "background": True}),
        (1, {"min_minutes": 0.1}),
        (2, {"min_minutes": 0.1, "background": True}),
    ],
)
def test_killed_anywhere_the_run_ends_bit_equal(
    fit: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accumulate: int,
    checkpoint: dict[str, Any],
) -> None:
    rng = random.Random(accumulate)
    slow = Takes(Clock(monkeypatch), lambda: rng.choice([0, 1, 7]))
    options = {"accumulate_grad_batches": accumulate, "checkpoint": checkpoint}
    fit(tmp_path / "whole", **(options | {"checkpoint": {}}))
    expected, rows = _final(tmp_path / "whole")
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        for _ in range(rng.randint(1, 3)):
            hook, call = rng.choice(HOOKS), rng.randint(1, 8)
            try:
                fit(folder, slow, KillAt(hook, call), **options)
            except Killed:
                continue
        fit(folder, slow, **options)
        saved, again = _final(folder)
        assert again == rows
        for name, state in expected.items():
            for part in state:
                assert _same(saved[name][part], state[part]), (name, part)


@pytest.mark.parametrize("background", [False, True])
def test_saving_takes_a_fiftieth_of_the_time(
    fit: Any, make_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    """100 epochs of 5 s, each better than the one before, where a file takes 1 s."""
    clock, write = Clock(monkeypatch), AtomicCheckpointIO.save_checkpoint
    written: list[float] = []

    def slow(*args: Any) -> None:
        write(*args)
        clock.now += 1
        written.append(clock.now)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", slow)

    class Better(make_module):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.log("val/score", float(self.current_epoch))

    fit(
        tmp_path,
        Takes(clock, lambda: 1),
        module=Better(),
        checkpoint={"min_minutes": None, "background": background},
        max_epochs=100,
        log_every_n_steps=5,
    )
    assert written[0] < 10
    # 2 % of 500 s, the first save and the last one: best and last make 2 s each time.
    assert 4 <= len(written) <= 14
    last, best = (torch.load(tmp_path / f"{n}.ckpt", weights_only=True) for n in ("last", "best"))
    assert last["global_step"] == best["global_step"] == 500


def test_content_is_plain_and_says_where_it_is_from(fit: Any, tmp_path: Path) -> None:
    fit(tmp_path, checkpoint={"metadata": {"config": {"a": [1, None]}, "version": "0"}})
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    logged = saved["metadata"].pop("logged")
    assert {"train/loss", "val/score"} <= logged.keys()
    assert saved["metadata"] == {"config": {"a": [1, None]}, "version": "0"}


@pytest.mark.parametrize("min_minutes", [0, 60])
def test_best_is_the_epoch_of_the_best_measure(
    fit: Any, make_module: Any, tmp_path: Path, min_minutes: float
) -> None:
    scores = {0: 0.5, 1: 0.9, 2: 0.7}

    class Scored(make_module):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.log("val/score", scores[self.current_epoch])

    written: list[str] = []

    def export(module: Any, path: Path) -> None:
        written.append(path.name)
        path.write_text(str(module.global_step))

    _, trainer = fit(
        tmp_path, module=Scored(), checkpoint={"export": export, "min_minutes": min_minutes}
    )
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (best["global_step"], last["global_step"]) == (10, 15)
    assert trainer.checkpoint_callback.best_score == pytest.approx(0.9)
    assert (tmp_path / "best.backbone.safetensors").read_text() == "10"
    assert (tmp_path / "last.backbone.safetensors").read_text() == "15"
    assert written.count("best.backbone.safetensors") == 2
    # min: the first epoch's
    fit(tmp_path / "min", module=Scored(), checkpoint={"mode": "min", "min_minutes": min_minutes})
    assert torch.load(tmp_path / "min/best.ckpt", weights_only=True)["global_step"] == 5


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_loses_no_earlier_checkpoint(
    fit: Any, tmp_path: Path, background: bool
) -> None:
    """The operating system refuses to write past a size, as it does on a full disk."""
    import resource

    class Fills(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if trainer.global_step == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"cannot write .*last\.new: File too large"):
            fit(tmp_path, Fills(), checkpoint={"background": background})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # What is written beside the training may have met the full disk, too.
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    assert last in ([2, 4] if background else [4])
    assert not [p.name for p in tmp_path.iterdir() if "new" in p.name]
    fit(tmp_path)
    fit(tmp_path / "whole")
    _, rows = _final(tmp_path)
    assert rows == _final(tmp_path / "whole")[1]


def test_rows_are_on_the_disk_before_the_checkpoint_that_follows_them(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk, rows_at_checkpoints = [0], []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        file = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if file.name == "metrics.csv":
            on_disk.append(file.read_bytes().count(b"\n") - 1)

    def replaced(source: Any, target: Any) -> None:
        replace(source, target)
        if Path(target).name == "last.ckpt":
            rows_at_checkpoints.append(on_disk[-1])

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    fit(tmp_path, every_n_steps=3)
    assert rows_at_checkpoints == [3, 5, 6, 9, 10, 12, 15]


def test_another_number_of_processes_continues_and_says_so(
    fit: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    saved["random_states"] *= 2
    torch.save(saved, tmp_path / "last.ckpt")
    with caplog.at_level("INFO"):
        fit(tmp_path)
    assert "continuing on 1 process(es) what 2 began" in caplog.text


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 damaged"])
def test_a_damaged_checkpoint_is_the_user_s_to_replace(
    fit: Any, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"last.ckpt (is|does not begin)"):
        fit(tmp_path)


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["optimizer_states"], {}, "its optimizer_states is a dict"),
        (["epoch"], "3", "its epoch is a str"),
        (["state_dict", "net.0.weight"], "text", "RuntimeError: Error"),
        (["state_dict", "net.0.weight"], torch.zeros(2), "size mismatch"),
        (["loops", "fit_loop"], None, "TypeError"),
        (["loops", "fit_loop", "epoch_loop.batch_progress", "total"], "text", "ValueError"),
        (["optimizer_states", 0, "param_groups"], [], "different number of parameter groups"),
        (["pytorch-lightning_version"], 3, "its pytorch-lightning_version is a int"),
    ],
)
def test_a_checkpoint_of_other_values_is_named(
    fit: Any, tmp_path: Path, keys: list[Any], value: Any, said: str
) -> None:
    fit(tmp_path)
    node = saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    torch.save(saved, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=rf"last.ckpt is no checkpoint .*{said}") as error:
        fit(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"mode": "most"}, {"min_minutes": -1}])
def test_impossible_arguments_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        ResumableCheckpoint(directory=tmp_path, **wrong)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(28, "No space left on device", "x.st"), UserError, "cannot write x.st: No space"),
        (KeyError("lost"), KeyError, "lost"),
    ],
)
def test_what_fails_beside_the_checkpoint_ends_the_run(
    fit: Any, tmp_path: Path, error: Exception, kind: type[Exception], sentence: str
) -> None:
    def export(module: Any, path: Path) -> None:
        raise error

    with pytest.raises(kind, match=sentence):
        fit(tmp_path, checkpoint={"export": export})
    assert not (tmp_path / "last.ckpt").exists()
