"""The data module: contents that do not depend on how they are loaded, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler

# Lightning reads batches with a part of torch that newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

Make = Callable[..., VideoDataModule]


@pytest.fixture
def make(
    manifest: Manifest,
    reader: VideoReader,
    transform: ClipTransform,
    eval_transform: ClipTransform,
) -> Make:
    def build(**changes: Any) -> VideoDataModule:
        given: dict[str, Any] = {
            "train": manifest,
            "val": manifest,
            "samplers": {"tuples": TupleSampler()},
            "transform": transform,
            "eval_transform": eval_transform,
            "reader": reader,
            "batch_size": 4,
            "num_workers": 0,
            "seed": 9,
            "eval_frames": 5,
            "eval_batch_size": 4,
        }
        return VideoDataModule(**{**given, **changes})

    return build


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


def trained(data: VideoDataModule, epoch: int = 1) -> list[Any]:
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    batches = list(loader)
    data.teardown("fit")
    return batches


def test_batches_have_the_shapes_they_promise(make: Make, manifest: Manifest) -> None:
    batches = trained(make(samplers={"tuples": TupleSampler(num_segments=2, frames_per_clip=3)}))
    assert len(batches) == 18 // 4
    assert len({int(i) for batch in batches for i in batch["index"]}) == 16
    for batch in batches:
        shapes = {name: tuple(view.shape) for name, view in batch["views"].items()}
        assert shapes == {
            "anchor": (4, 2, 3, 3, 32, 32),
            "positive": (4, 2, 3, 3, 32, 32),
            "second": (4, 1, 3, 3, 32, 32),
            "extra": (4, 1, 3, 3, 32, 32),
        }
        assert all(view.dtype == torch.uint8 for view in batch["views"].values())
        assert {name: tuple(r.shape) for name, r in batch["rows"].items()} == {
            "x1": (4, 1),
            "x2": (4, 1),
            "x3": (4, 1),
        }
        assert {name: tuple(o.shape) for name, o in batch["targets"].items()} == {
            "anchor_order": (4, 2),
            "positive_order": (4, 2),
            "shuffled": (4,),
        }
        assert batch["frame_indices"]["anchor"].shape == (4, 2, 3)
        for name in ("video_id", "group_id", "label", "index"):
            assert batch[name].shape == (4,)
            assert batch[name].dtype == torch.int64
        assert batch["label"].tolist() == [manifest.label(i) for i in batch["index"].tolist()]
        assert batch["rejected"] == []


@pytest.mark.parametrize(
    "how",
    [
        {"num_workers": 1, "start_method": "spawn"},
        {"num_workers": 2, "start_method": "fork", "prefetch_factor": 1},
    ],
)
def test_how_it_is_loaded_does_not_matter(make: Make, damaged: Manifest, how: Any) -> None:
    plain = trained(make(train=damaged))
    assert any(batch["rejected"] for batch in plain)
    assert equal(trained(make(train=damaged, **how)), plain)


def test_needed_views_come_from_the_module_in_training(make: Make) -> None:
    class Module(pl.LightningModule):
        required_views = frozenset({"second"})

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: list[set[str]] = []

        def training_step(self, batch: Any) -> torch.Tensor:
            self.seen.append(set(batch["views"]))
            return self.weight

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def views(data: VideoDataModule) -> list[set[str]]:
        module = Module()
        quiet: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        trainer = pl.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=1, **quiet)
        trainer.fit(module, data)
        return module.seen

    assert views(make()) == [{"second"}]
    assert views(make(views=["anchor", "second"])) == [{"anchor", "second"}]


def test_views_that_the_module_misses_are_named(make: Make) -> None:
    class Module(pl.LightningModule):
        required_views = frozenset({"second", "anchor"})

        def training_step(self, batch: Any) -> None: ...

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(Module())
    data = make(views=["anchor"])
    data.trainer = trainer
    with pytest.raises(UserError, match=r"views=\['anchor'\] leaves out second, which the module"):
        data.train_dataloader()


class Reading:
    """An objective, as far as data go."""

    def __init__(self, *views: str, targets: tuple[str, ...] = (), rows: str | None = None) -> None:
        self.views, self.needed, self.rows = views, targets, rows

    def requests(self) -> dict[str, Request]:
        return {"read": Request("query", self.views, rows=self.rows)}

    def targets(self) -> tuple[str, ...]:
        return self.needed


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            Reading("anchor", "query"),
            "no sampler yields the view query, which objective.objectives.mine reads; the samplers "
            "tuples yield anchor, extra, positive, second",
        ),
        (
            Reading("anchor", targets=("shuffled", "pace")),
            "nothing makes the target pace, which objective.objectives.mine reads; samplers and "
            "transforms make anchor_order, positive_order, shuffled",
        ),
        (
            Reading("anchor", rows="x4"),
            "nothing draws the rows x4, which objective.objectives.mine reads; samplers draw x1, "
            "x2, x3",
        ),
    ],
)
def test_what_an_objective_reads_and_there_is_not_is_named_at_start(
    make: Make, objective: Reading, message: str
) -> None:
    class Module(pl.LightningModule):
        objectives: ClassVar = {"other": Reading("anchor"), "mine": objective}
        required_views = frozenset(objective.views)
        required_targets = frozenset(objective.needed)

        def training_step(self, batch: Any) -> None: ...

        def configure_optimizers(self) -> None: ...

    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    with pytest.raises(UserError) as info:
        pl.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(Module(), make())
    assert str(info.value) == message


class LengthAsker(pl.LightningModule):
    """Has the loader built before the checkpoint's loops are restored, as schedules do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: Any) -> torch.Tensor:
        self.seen.append([self.current_epoch, *batch["index"].tolist()])
        return self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches == 12
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(pl.Callback):
    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.done += 1
        if not trainer.is_last_batch:
            trainer.save_checkpoint(self.folder / f"{self.done}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{self.done}.ckpt")


@pytest.mark.parametrize("short", [False, True], ids=["all videos", "short ones left out"])
def test_resume_is_exact_where_the_module_asks_for_the_length(
    make: Make,
    make_manifest: Callable[..., Manifest],
    video_folder: Path,
    tmp_path: Path,
    short: bool,
) -> None:
    class Long(TupleSampler):
        min_frames = 20

    given: dict[str, Any] = {"views": ["second"]}
    if short:  # 18 videos, of which two are 19 frames long
        counts = {file.stem: 20 for file in video_folder.rglob("*.mp4")}
        counts |= dict.fromkeys(sorted(counts)[3:5], 19)
        table = make_manifest(video_folder, num_frames=counts)
        given |= {"train": table, "samplers": {"tuples": Long()}}

    def fit(start: Path | None = None, callbacks: Any = ()) -> list[list[int]]:
        module = LengthAsker()
        quiet: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        trainer = pl.Trainer(accelerator="cpu", max_epochs=3, callbacks=list(callbacks), **quiet)
        trainer.fit(module, make(**given), ckpt_path=start)
        return module.seen

    whole = fit(callbacks=[SaveAt(tmp_path)])
    assert len(whole) == 12
    assert max(index for _, *indices in whole for index in indices) == (15 if short else 17)
    for step in range(1, 12):
        assert fit(tmp_path / f"{step}.ckpt") == whole[step:]


def test_overfitting_gives_the_same_batches_in_every_epoch(make: Make) -> None:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: list[torch.Tensor] = []

        def training_step(self, batch: Any) -> torch.Tensor:
            self.seen.append(batch["views"]["anchor"])
            return self.weight

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    pl.Trainer(accelerator="cpu", max_epochs=2, overfit_batches=2, **quiet).fit(module, make())
    assert len(module.seen) == 4
    assert torch.equal(module.seen[0], module.seen[2])
    assert torch.equal(module.seen[1], module.seen[3])
    assert not torch.equal(module.seen[0], module.seen[1])


def test_pairs_are_every_held_out_video_once(
    make: Make, damaged: Manifest, reader: VideoReader, transform: ClipTransform
) -> None:
    data = make(val=damaged, eval_batch_size=5)
    loader = data.pair_loader()
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert equal(batches, list(data.pair_loader()))
    ids = [int(i) for batch in batches for i in batch["video_id"]]
    assert ids == [i for i in range(18) if i not in (0, 8)]
    assert [item["video_id"] for batch in batches for item in batch["rejected"]] == [0, 8]
    assert {name for batch in batches for name in batch["views"]} == {"anchor", "positive"}
    dataset = VideoDataset(
        manifest=damaged,
        reader=reader,
        samplers={"tuples": TupleSampler()},
        transform=transform,
        seed=9,
    )
    assert torch.equal(batches[0]["views"]["positive"][0], dataset[0, 1]["views"]["positive"])


def test_frames_are_every_video_once(make: Make, damaged: Manifest) -> None:
    data = make(train=damaged, eval_frames=50, eval_batch_size=1)
    batches = list(data.frames_loader("train"))
    assert [batch["video_id"].tolist() for batch in batches] == [
        [] if i in (0, 8) else [i] for i in range(18)
    ]
    assert batches[0]["frames"].shape == (0, 50, 3, 1, 32, 32)
    assert batches[1]["frames"].shape == (1, 50, 3, 1, 32, 32)
    assert batches[1]["mask"].sum(1).tolist() == batches[1]["count"].tolist()
    assert 20 <= int(batches[1]["count"]) <= 40


def test_networks_of_clips_are_evaluated_on_clips(make: Make) -> None:
    data = make(eval_frames=3, frames_per_clip=4, frame_stride=2, eval_batch_size=1)
    single = make(eval_frames=50, eval_batch_size=1)
    for clips, alone in zip(data.frames_loader(), single.frames_loader(), strict=True):
        assert clips["frames"].shape == (1, 3, 3, 4, 32, 32)
        every = alone["frames"][0, : int(alone["count"]), :, 0]  # (n, C, H, W)
        for clip in clips["frames"][0].transpose(1, 2):
            found = (every[first : first + 7 : 2] for first in range(len(every) - 6))
            assert any(torch.equal(clip, frames) for frames in found)


def test_some_rows_are_the_same_as_among_all(make: Make) -> None:
    data = make(eval_batch_size=1)
    rows = [7, 0, 12]
    for load in (data.pair_loader, data.frames_loader):
        every = list(load("val"))
        some = list(load("val", rows=rows))
        assert len(some) == 3
        assert all(equal(batch, every[row]) for batch, row in zip(some, rows, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"num_workers": -1}, "num_workers=-1 must be at least 0"),
        ({"prefetch_factor": 0}, "prefetch_factor=0 must be at least 1"),
        ({"seed": -4}, "seed=-4 must be at least 0"),
        ({"max_rejected_share": 2}, "max_rejected_share=2 must be between 0 and 1"),
        ({"batch_size": 19}, "there are 18 training videos, fewer than one batch"),
        ({"views": ["query"]}, "no sampler yields the view query"),
        ({"start_method": "thread"}, "start_method='thread' is unknown"),
    ],
)
def test_wrong_values_are_named(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**changes).train_dataloader()


def test_a_split_that_is_not_there_is_named(make: Make) -> None:
    with pytest.raises(UserError, match=r"no val videos in this data module; it has train$"):
        make(val=None).pair_loader()
    with pytest.raises(UserError, match=r"no test videos in this .*; it has train and val"):
        make().frames_loader("test")


def test_resuming_with_other_data_is_refused(
    make: Make, make_manifest: Callable[..., Manifest], video_folder: Path
) -> None:
    state = make().state_dict()
    make().load_state_dict(state)
    with pytest.raises(UserError, match="trained with batch_size=4, this run has batch_size=2"):
        make(batch_size=2).load_state_dict(state)
    with pytest.raises(UserError, match="trained with seed=9, this run has seed=1"):
        make(seed=1).load_state_dict(state)
    with pytest.raises(UserError, match="trained with other training videos"):
        make(train=make_manifest(video_folder / "left")).load_state_dict(state)
