"""DPC and MemDPC against the same written out position by position, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request
from vclr_lightning.functional.dense_prediction import (
    conv_gru_step,
    dense_nce,
    predict_blocks,
    read_memory,
)
from vclr_lightning.objectives import DPC, MemDPC, block_prediction
from vclr_lightning.objectives.conv_gru import ConvGRUCell

B, BLOCKS, PREDICT, F, T, SIDE = 3, 5, 2, 4, 2, 2
Array = NDArray[np.float64]


def maps(videos: int = B) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (videos, BLOCKS, F, T, SIDE, SIDE)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def matrix(layer: Any) -> tuple[Array, Array]:
    return layer.weight.detach().numpy()[:, :, 0, 0], layer.bias.detach().numpy()


def gru(cell: Any, x: Array, h: Array) -> Array:
    """One position: two vectors to a vector."""

    def gate(layer: Any, h: Array) -> Array:
        weight, bias = matrix(layer)
        return np.asarray(weight @ np.concatenate([x, h]) + bias)

    u, r = sigmoid(gate(cell.update, h)), sigmoid(gate(cell.reset, h))
    return np.asarray((1 - u) * h + u * np.tanh(gate(cell.new, r * h)))


def two_layers(network: Any, h: Array) -> Array:
    (w1, b1), (w2, b2) = matrix(network[0]), matrix(network[2])
    return np.asarray(w2 @ np.maximum(w1 @ h + b1, 0) + b2)


def predicted(cell: Any, vectors: Array, predict: Any) -> list[Array]:
    """The predictions that follow the signed vectors of one position."""
    h = np.zeros(F)
    for z in vectors:
        h = gru(cell, np.maximum(z, 0), h)
    found = []
    for _ in range(PREDICT):
        found.append(predict(h))
        h = gru(cell, np.maximum(found[-1], 0), h)
    return found


def expected(cell: Any, z: Array, predict: Any) -> tuple[float, float]:
    """Loss and top-1 for blocks ``(B, n, F, h, w)`` in the order in which they are read."""
    places = [(b, y, x) for b in range(len(z)) for y in range(SIDE) for x in range(SIDE)]
    columns = {
        (b, s, y, x): z[b, BLOCKS - PREDICT + s, :, y, x]
        for b, y, x in places
        for s in range(PREDICT)
    }
    losses, hits = [], []
    for b, y, x in places:
        for s, p in enumerate(predicted(cell, z[b, : BLOCKS - PREDICT, :, y, x], predict)):
            scores = {where: float(p @ vector) for where, vector in columns.items()}
            top = max(scores.values())
            total = top + np.log(sum(np.exp(score - top) for score in scores.values()))
            losses.append(total - scores[b, s, y, x])
            hits.append(scores[b, s, y, x] == top)
    return float(np.mean(losses)), float(np.mean(hits))


def randomised(objective: nn.Module) -> nn.Module:
    """Biases and memory of some size, so that nothing can hide in zeros."""
    torch.manual_seed(5)
    objective.double()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return objective


def test_dpc() -> None:
    dpc = randomised(DPC(num_features=F, predict=PREDICT, dropout=0.0))
    assert isinstance(dpc, DPC)
    assert dpc.requests() == {"blocks": Request("query", ("blocks",), pooled=False)}
    x = maps().requires_grad_()
    out = dpc({"blocks": x}, {})  # type: ignore[arg-type]
    z = x.detach().numpy().mean(axis=3)
    loss, top1 = expected(dpc.gru, z, lambda h: two_layers(dpc.predictor, h))
    assert out.loss.item() == pytest.approx(loss)
    assert out.metrics["top1"].item() == pytest.approx(top1)
    assert out.metrics["chance"].item() == pytest.approx(1 / (B * PREDICT * SIDE**2))
    assert not out.pending
    # Into what is read and into what is predicted.
    out.loss.backward()
    assert x.grad is not None
    assert all(block.abs().sum() > 0 for block in x.grad.unbind(1))
    assert all(parameter.grad is not None for parameter in dpc.parameters())


def test_memdpc() -> None:
    memdpc = randomised(MemDPC(num_features=F, predict=PREDICT, slots=7, dropout=0.0))
    assert isinstance(memdpc, MemDPC)
    x = maps().requires_grad_()
    out = memdpc({"blocks": x}, {})  # type: ignore[arg-type]

    def predict(h: Array) -> Array:
        scores = np.exp(two_layers(memdpc.addressing, h))
        return np.asarray(sum(s * row for s, row in zip(scores / scores.sum(), rows, strict=True)))

    rows = memdpc.memory.detach().numpy()
    z = x.detach().numpy().mean(axis=3)
    ahead = expected(memdpc.forward_gru, z, predict)
    back = expected(memdpc.backward_gru, z[:, ::-1], predict)  # reads the last block first
    assert out.loss.item() == pytest.approx(ahead[0] + back[0])
    assert out.metrics["top1_forward"].item() == pytest.approx(ahead[1])
    assert out.metrics["top1_backward"].item() == pytest.approx(back[1])
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in memdpc.parameters())


def test_parameters_of_the_published_models() -> None:
    """14,583,104 and 15,436,608 with the 2D-3D ResNet-18 of 14,057,536."""
    assert sum(p.numel() for p in DPC(num_features=256).parameters()) == 14583104 - 14057536
    assert sum(p.numel() for p in MemDPC(num_features=256).parameters()) == 15436608 - 14057536


@pytest.mark.parametrize(("kind", "gain"), [(DPC, 1.0), (MemDPC, 0.1)])
def test_weights_start_orthogonal(kind: Any, gain: float) -> None:
    objective = kind(num_features=8)
    convolutions = [layer for layer in objective.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == (5 if kind is DPC else 8)
    for layer in convolutions:
        weight = layer.weight.detach()[:, :, 0, 0].double()
        gram = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
        identity = gain**2 * torch.eye(len(gram), dtype=torch.float64)
        torch.testing.assert_close(gram, identity, atol=1e-5, rtol=0)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_the_memory_starts_normal_and_is_trained() -> None:
    torch.manual_seed(0)
    memory = MemDPC(num_features=64).memory
    assert memory.shape == (1024, 64)
    assert memory.requires_grad
    assert abs(memory.mean().item()) < 0.02
    assert memory.std().item() == pytest.approx(1, abs=0.02)


def test_the_state_is_dropped_at_every_step_and_fed_back_as_dropped() -> None:
    cell = ConvGRUCell(num_features=1, dropout=0.5)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()  # the state is halved at each step
    torch.manual_seed(0)
    state = torch.ones(1, 1, 100, 100)
    for step in range(1, 4):
        state = cell(torch.zeros_like(state), state)
        # Kept with 1/2 and then doubled: 1 or 0, and 0 for ever.
        assert set(state.unique().tolist()) == {0.0, 1.0}
        assert state.mean().item() == pytest.approx(0.5**step, abs=0.03)
    cell.eval()
    assert cell(torch.zeros_like(state), torch.ones_like(state)).unique().item() == 0.5


def test_dropout_also_acts_while_predicting() -> None:
    dpc = randomised(DPC(num_features=F, predict=4, dropout=0.5))
    calls = []
    cell = dpc.gru
    assert isinstance(cell, ConvGRUCell)
    cell.register_forward_hook(lambda *_: calls.append(1))
    dpc({"blocks": maps()}, {})
    assert len(calls) == 1 + 3  # one block is read; the last prediction is not


@pytest.mark.parametrize("kernel", [1, 3])
def test_gates_see_their_neighbourhood(kernel: int) -> None:
    cell = ConvGRUCell(num_features=2, kernel_size=kernel, dropout=0.0).double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    cell(x, torch.zeros_like(x))[0, :, 2, 2].sum().backward()
    assert x.grad is not None
    assert int((x.grad.abs().sum((0, 1)) > 0).sum()) == kernel**2


def test_a_gru_cell_of_torch_gives_the_same_up_to_where_reset_acts() -> None:
    """With the reset gate open, nn.GRUCell with u negated and shared weights is the same."""
    torch.manual_seed(0)
    weight = {name: torch.randn(3, 5, 1, 1, dtype=torch.float64) for name in ("u", "n")}
    bias = {name: torch.randn(3, dtype=torch.float64) for name in ("u", "n")}
    wide = torch.zeros(3, 5, 1, 1, dtype=torch.float64), torch.full((3,), 50.0).double()
    cell = nn.GRUCell(2, 3).double()
    zero = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for part, target in ((slice(0, 2), cell.weight_ih), (slice(2, 5), cell.weight_hh)):
            target[:3] = 0  # reset
            target[3:6] = -weight["u"][:, part, 0, 0]
            target[6:] = weight["n"][:, part, 0, 0]
        cell.bias_ih.copy_(torch.cat([wide[1], -bias["u"], bias["n"]]))
        cell.bias_hh.copy_(torch.cat([zero, zero, zero]))
    x, h = torch.randn(7, 2).double(), torch.randn(7, 3).double()
    found = conv_gru_step(
        x[:, :, None, None],
        h[:, :, None, None],
        update=(weight["u"], bias["u"]),
        reset=wide,
        new=(weight["n"], bias["n"]),
    )
    torch.testing.assert_close(found[:, :, 0, 0], cell(x, h))


def test_maps_without_time_are_read_as_they_are() -> None:
    dpc = randomised(DPC(num_features=F, predict=PREDICT, dropout=0.0))
    still = maps()[:, :, :, :1]
    with_time = dpc({"blocks": still.expand(-1, -1, -1, 3, -1, -1)}, {}).loss
    assert dpc({"blocks": still.squeeze(3)}, {}).loss.item() == pytest.approx(with_time.item())


def test_rows_of_other_processes_are_columns() -> None:
    p, z = torch.randn(4, 3).double(), torch.randn(10, 3).double()
    found = dense_nce(p, z, first=5)
    assert found.loss.item() == pytest.approx(
        cross_entropy(p @ z.T, torch.tensor([5, 6, 7, 8])).item()
    )
    assert found.chance == 1 / 10


@pytest.mark.parametrize("kind", [DPC, MemDPC])
def test_local_and_global_negatives(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes, each with half of the batch."""

    def loss(x: Tensor, negatives: str) -> float:
        objective = kind(num_features=F, predict=PREDICT, dropout=0.0, negatives=negatives)
        return float(randomised(objective)({"blocks": x}, {}).loss.detach())

    halves = maps(4).chunk(2)
    whole = loss(maps(4), "global")
    alone = [loss(half, "local") for half in halves]
    assert whole == loss(maps(4), "local")

    targets: list[list[Tensor]] = [[], []]
    for rank, half in enumerate(halves):  # each direction's targets, in the order of the calls
        monkeypatch.setattr(
            block_prediction, "gather_with_gradient", lambda x, r=rank: targets[r].append(x) or x
        )
        loss(half, "global")
    shares = []
    for rank, half in enumerate(halves):
        calls = iter(zip(*targets, strict=True))
        monkeypatch.setattr(
            block_prediction, "gather_with_gradient", lambda x, calls=calls: torch.cat(next(calls))
        )
        monkeypatch.setattr(block_prediction, "rank", lambda rank=rank: rank)
        shares.append(loss(half, "global"))
        assert loss(half, "local") == alone[rank]  # whatever other processes have
    assert np.mean(shares) == pytest.approx(whole)
    assert np.mean(alone) < whole  # fewer columns


def test_steps_of_predicting() -> None:
    blocks = torch.tensor([[1.0, -3.0, 2.0], [0.0, 1.0, 0.0]]).view(2, 3, 1, 1, 1)
    seen = []

    def cell(x: Tensor, state: Tensor) -> Tensor:
        seen.append((x.flatten().tolist(), state.flatten().tolist()))
        return x + 10 * state

    found = predict_blocks(blocks, steps=2, cell=cell, predict=torch.neg)
    assert seen[:3] == [([1, 0], [0, 0]), ([0, 1], [1, 0]), ([2, 0], [10, 1])]
    assert seen[3:] == [([0, 0], [102, 10])]  # ReLU of the negative prediction
    assert found.flatten(1).tolist() == [[-102, -1020], [-10, -100]]


def test_a_memory_is_read_at_every_position() -> None:
    scores, memory = torch.randn(2, 5, 3, 4).double(), torch.randn(5, 6).double()
    found = read_memory(scores, memory)
    for b, y, x in np.ndindex(2, 3, 4):
        weights = torch.exp(scores[b, :, y, x])
        expected = sum(w * row for w, row in zip(weights / weights.sum(), memory, strict=True))
        torch.testing.assert_close(found[b, :, y, x], expected)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"negatives": "all"}, "negatives"),
        ({"predict": 0}, "predict"),
        ({"dropout": 1.5}, "dropout"),
        ({"slots": 0}, "slots"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        MemDPC(num_features=F, **options)


def test_maps_that_do_not_fit() -> None:
    dpc = DPC(num_features=F)
    with pytest.raises(UserError, match="2 blocks, of which predict=3"):
        dpc({"blocks": maps()[:, :2].float()}, {})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="height and width"):
        dpc({"blocks": torch.zeros(2, 8, F)}, {})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="F=4 features"):
        dpc({"blocks": torch.zeros(2, 8, F + 1, 2, 2)}, {})  # type: ignore[arg-type]
