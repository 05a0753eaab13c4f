"""Two processes share the queries of a metric; started by test_recall_metric.py."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist

from vclr_lightning.evaluation.recall_metric import RecallAtK


def main(rank: int, file: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    given = torch.load(f"{out}/given.pt", weights_only=True)
    values = {}
    for average in ("micro", "macro", "none"):
        metric = RecallAtK(
            given["gallery"], given["gallery_labels"], ks=(1, 5), average=average, num_classes=4
        )
        # shares of different length: 5 queries and the other 18, or none and all
        for name, cut in [("uneven", 5), ("nothing", 0)]:
            metric.reset()
            mine = slice(0, cut) if rank == 0 else slice(cut, None)
            for part in zip(
                given["queries"][mine].split(4), given["labels"][mine].split(4), strict=True
            ):
                if len(part[0]):
                    metric.update(*part)
            values[f"{average} {name}"] = metric.compute()
    torch.save(values, os.path.join(out, f"rank{rank}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
