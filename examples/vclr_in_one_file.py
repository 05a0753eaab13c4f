"""VCLR in one file: the whole method in plain PyTorch; only the videos are read by the package.

    python examples/vclr_in_one_file.py /folder/of/videos

Shapes: B videos, S segments, F backbone features, D values of an embedding, K keys in a queue.
"""

import copy
import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchvision.models import resnet18

LOSSES = ("inter", "intra", "video", "order")


def head(num_features: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, dim)
    )


def pick(x: Tensor, positions: Tensor) -> Tensor:
    """Of each video's rows (B, n, ...) those at positions (B, r): (B, r, ...)."""
    return x[torch.arange(len(x))[:, None], positions]


def info_nce(
    query: Tensor, keys: Tensor, negatives: Tensor, masked: Tensor | None = None, t: float = 0.1
) -> Tensor:
    """-log(e^{q.k/t} / (e^{q.k/t} + sum_n e^{q.n/t})), averaged over videos and their keys.

    query (B, D), keys (B, P, D), negatives (K, D) of all videos or (B, N, D) of each;
    masked (B, K) is true for negatives to leave out.
    """
    negatives = negatives.expand(len(query), -1, -1)
    positive = torch.einsum("bd,bpd->bp", query, keys) / t
    negative = torch.einsum("bd,bnd->bn", query, negatives) / t
    if masked is not None:
        negative = negative.masked_fill(masked, -torch.inf)
    others = negative[:, None].expand(-1, positive.shape[1], -1)  # (B, P, N)
    return (torch.cat([positive[..., None], others], dim=2).logsumexp(2) - positive).mean()


class Queue(nn.Module):
    """The last K keys of earlier steps and the videos that they show: a ring buffer."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ids", torch.full((size,), -1))
        self.pointer = 0

    def push(self, keys: Tensor, ids: Tensor) -> None:
        rows = (self.pointer + torch.arange(len(keys))) % len(self.keys)
        self.keys[rows], self.ids[rows] = keys, ids
        self.pointer = (self.pointer + len(keys)) % len(self.keys)


class VCLR(nn.Module):
    """Two encoders, four losses and two queues (Section 3 of the paper), for S of 3 and more."""

    def __init__(
        self, backbone: nn.Module, num_features: int, S: int = 3, D: int = 128, K: int = 131072
    ) -> None:
        super().__init__()
        heads = {loss: head(num_features, D) for loss in LOSSES}
        self.query = nn.ModuleDict({"backbone": backbone, **heads})
        self.key = copy.deepcopy(self.query).requires_grad_(False)  # the momentum encoder
        self.classifier = nn.Linear(2 * S * D, 4)
        self.inter_queue, self.video_queue = Queue(K, D), Queue(K, D)

    def encode(self, encoder: nn.ModuleDict, *views: Tensor) -> list[Tensor]:
        """uint8 views (B, n, 3, 1, H, W), all in one forward pass, to features (B, n, F)."""
        frames = torch.cat(views, dim=1).squeeze(3)  # (B, sum of n, 3, H, W)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        features = encoder["backbone"]((frames.flatten(0, 1) / 255 - mean) / std)
        return list(features.unflatten(0, frames.shape[:2]).split([v.shape[1] for v in views], 1))

    def forward(self, batch: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the four losses, and the keys that enter the queues after the step."""
        views, rows, targets, video = (batch[k] for k in ("views", "rows", "targets", "video_id"))
        q, k = self.query, self.key
        others = torch.cat([rows["x2"], rows["x3"]], dim=1)  # (B, 2)
        (anchor,) = self.encode(q, views["anchor"])  # (B, S, F)
        with torch.no_grad():
            frames, positive = self.encode(  # x1 in a second augmentation, x2, x3; the tuple v'
                k,
                torch.cat([views["second"], pick(views["anchor"], others)], dim=1),
                views["positive"],
            )
        x1 = pick(anchor, rows["x1"])[:, 0]

        # Inter-frame: all three frames are keys of x1; frames of other videos are negatives.
        inter_keys = normalize(k["inter"](frames), dim=2)  # (B, 3, D)
        inter = info_nce(
            normalize(q["inter"](x1), dim=1),
            inter_keys,
            self.inter_queue.keys,
            masked=video[:, None] == self.inter_queue.ids,  # earlier keys of the same video
        )
        # Intra-frame: the second view of x1 is the key; x2 and x3 are the only negatives.
        intra_keys = normalize(k["intra"](frames), dim=2)
        intra = info_nce(normalize(q["intra"](x1), dim=1), intra_keys[:, :1], intra_keys[:, 1:])

        # Video-level: the average of a tuple against that of the positive tuple.
        video_keys = normalize(k["video"](positive.mean(1)), dim=1)  # (B, D)
        video_level = info_nce(
            normalize(q["video"](anchor.mean(1)), dim=1),
            video_keys[:, None],
            self.video_queue.keys,
            masked=video[:, None] == self.video_queue.ids,
        )
        # Temporal order: which of the tuples is shuffled: neither, the anchor, the positive, both?
        tuples = torch.cat(
            [
                pick(normalize(q["order"](anchor), dim=2), targets["anchor_order"]),
                pick(normalize(k["order"](positive), dim=2), targets["positive_order"]),
            ],
            dim=1,
        )  # (B, 2 S, D)
        order_loss = cross_entropy(self.classifier(tuples.flatten(1)), targets["shuffled"])

        losses = {"inter": inter, "intra": intra, "video": video_level, "order": order_loss}
        return losses, {"inter": inter_keys.detach(), "video": video_keys.detach()}

    @torch.no_grad()
    def after_step(self, keys: dict[str, Tensor], video: Tensor, momentum: float = 0.999) -> None:
        """Move the key encoder a little, then write this step's keys into the queues."""
        for query, key in zip(self.query.parameters(), self.key.parameters(), strict=True):
            key.lerp_(query, 1 - momentum)
        self.inter_queue.push(keys["inter"].transpose(0, 1).flatten(0, 1), video.repeat(3))
        self.video_queue.push(keys["video"], video)


def main(folder: str, epochs: int = 100, batch_size: int = 32) -> None:
    from vclr_lightning.data.indexing import ensure_manifest
    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.data.readers import PyAVReader
    from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
    from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

    data = VideoDataModule(
        train=ensure_manifest(folder),
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=112),
        eval_transform=EvalTransform(size=112, resize=128),
        reader=PyAVReader(),
        batch_size=batch_size,
        num_workers=2,
    )
    backbone = resnet18()
    backbone.fc = nn.Identity()
    model = VCLR(backbone, 512, K=4096)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1 * batch_size / 256, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loader = data.train_dataloader()
    for epoch in range(epochs):
        for batch in loader:
            losses, keys = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            model.after_step(keys, batch["video_id"])
        scheduler.step()
        print(f"epoch {epoch + 1}:", *(f"{name} {loss:.3f}" for name, loss in losses.items()))
    torch.save(backbone.state_dict(), "vclr_resnet18.pth")


if __name__ == "__main__":
    main(*sys.argv[1:2] or sys.exit("usage: python examples/vclr_in_one_file.py FOLDER"))
