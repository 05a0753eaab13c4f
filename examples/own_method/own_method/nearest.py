"""An objective with a queue: the positive is the key's nearest neighbour (NNCLR)."""

from torch import nn
from torch.nn.functional import cross_entropy, normalize

from vclr_lightning.core.queue import KeyQueue
from vclr_lightning.core.types import ObjectiveOutput, Request
from vclr_lightning.objectives import Objective


class NearestNeighbour(Objective):
    def __init__(self, *, num_features, query="anchor", key="positive", queue_size=512):
        super().__init__()
        self.query, self.key = query, key
        self.head, self.key_head = nn.Linear(num_features, 64), nn.Linear(num_features, 64)
        self.queue = KeyQueue(queue_size, 64)

    def requests(self):
        return {"query": Request.of(self.query), "key": Request.of(self.key, encoder="key")}

    def momentum_pairs(self):
        return [(self.head, self.key_head)]

    def forward(self, features, batch):
        query = normalize(self.head(features["query"].mean(1)), dim=1)  # (B, D)
        key = normalize(self.key_head(features["key"].mean(1)), dim=1)
        nearest = (key @ self.queue.rows.T).argmax(1)  # (B,)
        logits = query @ self.queue.rows.T / 0.1  # (B, K)
        top1 = (logits.argmax(1) == nearest).float().mean()
        pending = {"keys": key, "ids": batch["video_id"]}
        return ObjectiveOutput(cross_entropy(logits, nearest), {"top1": top1}, pending)

    def commit(self, pending, step):
        self.queue.push(pending["keys"], pending["ids"], step)
