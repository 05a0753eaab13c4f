"""A run of another project, stopped within an epoch and continued, ends bit-equal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_modules import (
    MODULES,
    NoisySamples,
    OwnSeed,
    Samples,
    Signals,
    make_loader,
    make_trainer,
)
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from vclr_lightning.callbacks import AtomicCheckpointIO, GracefulStop, ResumableCheckpoint
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback, LightningDataModule
from vclr_lightning.core.stopping import StopRequested


def run(
    folder: Path,
    kind: str,
    form: str,
    *,
    stop: int = -1,
    module: Any = None,
    loader: Any = None,
    more: Sequence[Callback] = (),
    options: Any = None,
    processes: Any = None,
    **checkpoint: Any,
) -> Any:
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)
    training = (module or MODULES[kind])()
    saving = ResumableCheckpoint(directory=folder, **checkpoint)
    callbacks = [*more, GracefulStop(), Signals(stop), saving]
    trainer = make_trainer(
        *callbacks, enable_checkpointing=True, plugins=[AtomicCheckpointIO()], **(processes or {})
    )
    trainer.fit(
        training,
        loader or make_loader(form, kind, **(options or {})),
        ckpt_path=str(saving.last_path) if saving.last_path.exists() else None,
    )
    return training


def same(a: Any, b: Any) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("form", ["plain", "sequential", "stateful", "iterable"])
@pytest.mark.parametrize("kind", MODULES)
def test_stopped_and_continued(kind: str, form: str, tmp_path: Path) -> None:
    """Stopped in the first epoch, at its end, and in the second."""
    whole = run(tmp_path / "whole", kind, form)
    for stop in (1, 4, 6):
        with pytest.raises(StopRequested):
            run(tmp_path / str(stop), kind, form, stop=stop)
        assert same(run(tmp_path / str(stop), kind, form), whole), stop


def weights(folder: Path) -> list[torch.Tensor]:
    return list(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"].values())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "stateful", "iterable"])
def test_two_processes(form: str, tmp_path: Path) -> None:
    """With random numbers of each process; the plain loader's run continues on spawned ones."""

    def once(folder: Path, start: str, stop: int = -1) -> Any:
        torch.manual_seed(0)  # torchdata's sampler draws its seed when it is made
        data = {"plain": DataLoader, "stateful": StatefulDataLoader}.get(form)
        loader = data and data(NoisySamples("simclr"), batch_size=4, shuffle=True)
        return run(
            folder,
            "simclr",
            form,
            loader=loader,
            stop=stop,
            more=[OwnSeed()],
            processes={"strategy": f"ddp_{start}", "devices": 2},
        )

    once(tmp_path / "whole", "fork")
    with pytest.raises(ProcessExitedException, match="143"):
        once(tmp_path / "stopped", "fork", stop=4 if form == "plain" else 1)
    saved = torch.load(tmp_path / "stopped/last.ckpt", weights_only=True)
    first, second = saved["loader_positions"]
    assert not torch.equal(
        first["loaders"][0]["before"]["random"]["torch"],
        second["loaders"][0]["before"]["random"]["torch"],
    )
    once(tmp_path / "stopped", "spawn" if form == "plain" else "fork")
    pairs = zip(weights(tmp_path / "stopped"), weights(tmp_path / "whole"), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("generator", [False, True])
def test_augmentation_continues(workers: int, generator: bool, tmp_path: Path) -> None:
    """In the process itself, in workers and on the device; with a generator of the loader's own."""

    class Augments(MODULES["adversarial"]):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch + torch.rand(())

    def once(folder: Path, stop: int = -1) -> Any:
        own = torch.Generator().manual_seed(3) if generator else None
        options = {"num_workers": workers, "generator": own}
        loader = DataLoader(NoisySamples("adversarial"), batch_size=4, shuffle=True, **options)
        return run(folder, "", "", module=Augments, loader=loader, stop=stop)

    whole = once(tmp_path / "whole")
    with pytest.raises(StopRequested):
        once(tmp_path / "stopped", stop=6)
    assert same(once(tmp_path / "stopped"), whole)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("plain", "of the 2 batches left in the epoch, about 60% of the samples repeat, and as"),
        ("sequential", "of the 2 batches left in the epoch, the first 2 repeat, and as many at"),
        ("iterable", "begins anew: its first 3 batches repeat, and the epoch is longer by them"),
        ("stateful", ""),
    ],
)
def test_without_fast_forward_it_is_said_what_repeats(
    form: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[list[str]] = [[]]

    class Sees(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if trainer.current_epoch == 0:
                seen[-1] += batch["name"]

    with pytest.raises(StopRequested):
        run(tmp_path, "classifier", form, more=[Sees()], stop=2, fast_forward=False)
    before = set(seen[-1][:12])  # the fourth batch was fetched, but not trained on
    seen.append([])
    run(tmp_path, "classifier", form, more=[Sees()], fast_forward=False)
    warned = [r.getMessage() for r in caplog.records if "continuing in epoch" in r.getMessage()]
    assert len(warned) == bool(said)
    if said:
        assert said in warned[0]
    repeated = before & set(seen[-1])
    expected = {"sequential": 8, "iterable": 12, "stateful": 0}
    assert len(repeated) == expected.get(form, len(repeated))
    assert bool(repeated) == bool(said)
    assert len(seen[-1]) == (20 if form == "iterable" else 8)


@pytest.mark.parametrize("own", [False, True])
def test_reading_again_is_said(own: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Data(LightningDataModule):
        def train_dataloader(self) -> Any:
            return make_loader("plain", "classifier")

    class Restores(Data):
        def state_dict(self) -> dict[str, Any]:
            return {"consumed": 12}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    data = Restores if own else Data
    with pytest.raises(StopRequested):
        run(tmp_path, "classifier", "", loader=data(), stop=2)
    with caplog.at_level("INFO"):
        run(tmp_path, "classifier", "", loader=data())
    assert "continuing in epoch 0 after 3 batches, which are read once more" in caplog.text
    assert ("give fast_forward=False if the data module" in caplog.text) == own


def test_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        run(tmp_path, "classifier", "plain", stop=2)
    with pytest.raises(UserError, match=r"an epoch of \[5\] batches.* it now has \[10\]"):
        run(tmp_path, "classifier", "plain", options={"batch_size": 2})


def test_two_loaders_of_different_length(tmp_path: Path) -> None:
    """The shorter one begins again within the epoch of the longer one."""

    class Two(MODULES["adversarial"]):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(torch.cat(list(batch.values())), batch_idx)

    def once(folder: Path, stop: int = -1) -> Any:
        long = make_loader("plain", "adversarial")
        short = DataLoader(Samples("adversarial", 8), batch_size=4, shuffle=True)
        return run(folder, "", "", module=Two, loader={"a": long, "b": short}, stop=stop)

    whole = once(tmp_path / "whole")
    for stop in (1, 2, 8):
        with pytest.raises(StopRequested):
            once(tmp_path / str(stop), stop=stop)
        assert same(once(tmp_path / str(stop)), whole), stop


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before.*")
def test_other_checkpoints_load_beside_it(tmp_path: Path) -> None:
    """A checkpoint of Lightning's own callback continues, and one of ours without the callback."""
    with pytest.raises(StopRequested):
        run(tmp_path, "classifier", "plain", stop=2)
    make_trainer().fit(
        MODULES["classifier"](),
        make_loader("plain", "classifier"),
        ckpt_path=str(tmp_path / "last.ckpt"),
    )
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for key in ("loader_positions", "random_states", "logged_steps"):
        del saved[key]
    torch.save(saved, tmp_path / "last.ckpt")
    run(tmp_path, "classifier", "plain")
