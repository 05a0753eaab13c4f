"""Encode videos by one process or one per device; finished batches survive a kill."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    spawn,
)
from torch.nn.functional import normalize

from vclr_lightning.core.distributed import gather_objects, rank, world_size
from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.processes import end_with_creator, how_ended, is_stopped
from vclr_lightning.core.screen import track
from vclr_lightning.core.stopping import signals_blocked
from vclr_lightning.data.loading.evaluation_datasets import FramesDataset
from vclr_lightning.data.loading.loader import BatchLoader
from vclr_lightning.data.loading.workers import WorkerOptions
from vclr_lightning.evaluation.encoders import frame_encoder
from vclr_lightning.evaluation.feature_journals import (
    EncodedBatch,
    FeatureJournal,
    read_journals,
    read_store,
)
from vclr_lightning.evaluation.features import encode_batch
from vclr_lightning.stages.shared.hardware import Hardware

_POLL = 1.0  # seconds
_CONTINUES = "the same command continues"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What is to be encoded, and how; sent to every process.

    Attributes:
        dataset: frames of the videos.
        backbone: the network.
        layer: whose output is wanted; ``None`` for the network's features.
        keep_frames: keep each frame's features instead of a video's average.
        normalize: scale each frame's features to unit length first.
        blocks: rows of the manifest, in batches. Batches do not depend on the number of processes,
            because what else is in a batch may change the last bits of a feature.
        workers: how each process loads.
        hardware: precision and threads.
        devices: one for each process.
        chunk: frames encoded at a time.
        work: folder of the journals.
        kept: a store, some of whose videos could not be read; its complete batches are not encoded
            again.
        description: of the progress bar.
        show: whether to show one.
    """

    dataset: FramesDataset
    backbone: nn.Module
    layer: str | None
    keep_frames: bool
    normalize: bool
    blocks: Sequence[tuple[int, ...]]
    workers: WorkerOptions
    hardware: Hardware
    devices: Sequence[torch.device]
    chunk: int
    work: Path
    kept: Path | None
    description: str
    show: bool

    def run(self) -> list[EncodedBatch]:
        """Encode what has not been encoded or could not be read, and return all, in order.

        Within a process group each of its ranks takes part; otherwise one process for each
        device is started, if there are several.

        Raises:
            UserError: a process finds a mistake in the input, or is lost.
        """
        before = read_store(self.kept, self.blocks) if self.kept is not None else {}
        before |= read_journals(self.work)
        left = [block for block in self.blocks if block not in before or before[block].rejected]
        processes = min(len(self.devices), len(left))
        if world_size() > 1:
            self._check_shared()  # which also waits: nobody writes before all have read
            encode_part(self, left, number=rank(), of=world_size())
            gather_objects(None)
        elif processes > 1:
            _encode_by_processes(self, left, processes)
        else:
            encode_part(self, left)
        done = before | read_journals(self.work)
        return [done[block] for block in self.blocks]

    def _check_shared(self) -> None:
        """Check that the ranks of all machines see the folder of the journals."""
        if rank() == 0:
            self.work.mkdir(parents=True, exist_ok=True)
        gather_objects(None)
        if not all(gather_objects(self.work.is_dir())):
            raise UserError(
                f"some ranks do not see {self.work}, where features are to be collected; give "
                "features.folder or features.cache_dir on a file system that all machines share"
            )


def encode_part(
    job: Extraction, blocks: Sequence[tuple[int, ...]], *, number: int = 0, of: int = 1
) -> None:
    """Encode every ``of``-th batch, from ``number`` on, into a journal of its own.

    Raises:
        UserError: the input is wrong, or the disk full.
    """
    mine = list(blocks[number::of])
    if not mine:
        return
    hardware, before = job.hardware, torch.get_num_threads()
    device = job.devices[number % len(job.devices)]
    if hardware.threads is not None or of > 1:
        share = max(1, (os.cpu_count() or 1) // min(of, len(job.devices)))  # of this machine
        torch.set_num_threads(hardware.threads or share)
    encoders = {"": frame_encoder(job.backbone.to(device), layer=job.layer)}
    journal = FeatureJournal(job.work)
    loader = BatchLoader(job.dataset, [list(block) for block in mine], job.workers)
    try:
        batches = track(loader, job.description, show=job.show and number == 0)
        for block, batch in zip(mine, batches, strict=True):
            features: Sequence[torch.Tensor] = ()
            if len(batch["video_id"]):
                with hardware.computing(device):
                    features = encode_batch(encoders, batch, device=device, chunk=job.chunk)[""]
                if job.normalize:
                    features = [normalize(video, dim=1) for video in features]
                if not job.keep_frames:
                    features = [video.mean(dim=0, keepdim=True) for video in features]
            journal.add(block, batch, features)
    finally:
        journal.close()
        loader.close()
        torch.set_num_threads(before)


def _encode_by_processes(
    job: Extraction, blocks: Sequence[tuple[int, ...]], processes: int
) -> None:
    """Encode by several processes of this machine, and wait for them."""
    # In a file: tensors would be moved to shared memory, of which containers have little, and
    # filling the pipe of a process that was killed before it read would block forever.
    content = io.BytesIO()
    torch.save((job, blocks), content)
    job.work.mkdir(parents=True, exist_ok=True)
    file = job.work / "job.bin"
    file.write_bytes(content.getbuffer())
    errors = multiprocessing.get_context("spawn").SimpleQueue()  # CUDA allows no other
    main = threading.current_thread() is threading.main_thread()
    arguments = (file, processes, errors, main)
    with signals_blocked():
        context = spawn(_encode_child, arguments, nprocs=processes, join=False)  # type: ignore[no-untyped-call]
    stopped = 0.0
    try:
        while not context.join(_POLL, grace_period=0):
            still = [process.pid for process in context.processes if is_stopped(process.pid)]
            stopped = stopped + _POLL if still else 0.0
            if stopped >= job.workers.timeout:
                raise UserError(
                    f"a process that encodes videos ({still[0]}) is stopped (SIGSTOP) for "
                    f"data.timeout={job.workers.timeout:g} s; {_CONTINUES}"
                )
    except ProcessExitedException as error:
        how, pid = how_ended(error.exit_code), context.pids()[error.error_index]
        raise UserError(
            f"a process that encodes videos ({pid}) {how}; where memory is short, give"
            f" fewer trainer.devices or data.num_workers; {_CONTINUES}"
        ) from error
    finally:
        for process in context.processes:
            process.kill()
        file.unlink(missing_ok=True)
    if not errors.empty():
        raise errors.get()


def _encode_child(number: int, file: Path, of: int, errors: Any, from_main_thread: bool) -> None:
    end_with_creator(from_main_thread=from_main_thread)
    try:
        job, blocks = torch.load(file, map_location="cpu", weights_only=False)
        encode_part(job, blocks, number=number, of=of)
    except (UserError, CodeFault) as error:
        errors.put(error)
