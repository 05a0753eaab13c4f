"""Evaluate during training on 1 and 3 gloo processes; run as a script by its test."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from test_online_evaluation import Data, Foreign

from vclr_lightning.callbacks.online_evaluation import OnlineEvaluation


def evaluate(rank: int, world: int, videos: int, port: int, path: Path) -> None:
    warnings.filterwarnings("error", message=".*sync_dist.*")
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=DDPStrategy(process_group_backend="gloo"),
        plugins=[TorchElasticEnvironment()],
        max_epochs=1,
        callbacks=[OnlineEvaluation(show=False)],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Foreign(), datamodule=Data(videos=videos, rank=rank, world_size=world))
    if rank == 0:
        path.write_text(json.dumps({k: float(v) for k, v in trainer.callback_metrics.items()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fork = multiprocessing.get_context("fork")
    for world, videos in ((1, 12), (3, 12), (1, 2), (3, 2)):  # 2 videos: a rank has none
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (world, videos, port, folder / f"{world}-{videos}.json")
        ranks = [fork.Process(target=evaluate, args=(rank, *arguments)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            sys.exit(f"{world} processes failed")
