"""VTHCL's objective: two pathways, several stages, a memory bank for each of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.memory_bank import MemoryBank
from vclr_lightning.objectives import VTHCL

STAGES = {"layer3": [6, 3], "layer4": [8, 4]}
VIDEOS = [4, 0, 6]


def _objective(**options: Any) -> VTHCL:
    torch.manual_seed(0)
    given: dict[str, Any] = {"stages": STAGES, "embedding_dim": 5, "negatives": 9, "videos": 7}
    return VTHCL(num_features=8, **given | options).double()


def _features(seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        f"{layer}.{pathway}": torch.randn(3, 1, size, dtype=torch.float64, generator=rng)
        for layer, sizes in STAGES.items()
        for pathway, size in zip(("slow", "fast"), sizes, strict=True)
    }


def _batch(step: int = 0) -> Any:
    return {"video_id": torch.tensor(VIDEOS), "step": step}


def _embedded(vthcl: VTHCL, features: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    for name, x in features.items():
        head = vthcl.heads[name.replace(".", "_")].state_dict()
        y = x[:, 0].numpy() @ head["weight"].numpy().T + head["bias"].numpy()
        found[name] = y / np.linalg.norm(y, axis=1, keepdims=True)
    return found


def _banks(vthcl: VTHCL) -> dict[str, np.ndarray[Any, Any]]:
    return {name: bank.rows.numpy().copy() for name, bank in vthcl.banks.items()}  # type: ignore[operator,union-attr]


def _written_out(vthcl: VTHCL, features: dict[str, Tensor], drawn: Tensor) -> float:
    banks, z = _banks(vthcl), _embedded(vthcl, features)
    total = 0.0
    for layer in STAGES:
        for query, other in (("slow", "fast"), ("fast", "slow")):
            bank = banks[f"{layer}_{other}"]
            losses = []
            for i, video in enumerate(VIDEOS):
                q = z[f"{layer}.{query}"][i]
                logits = np.array([q @ bank[video], *(q @ bank[j] for j in drawn[i])]) / 0.07
                losses.append(np.log(np.exp(logits - logits[0]).sum()))
            total += float(np.mean(losses))
    return total


def test_each_pathway_is_contrasted_with_the_banks_of_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vthcl = _objective()
    drawn = torch.randint(7, (3, 9), generator=torch.Generator().manual_seed(1))
    drawn[0, 0] = VIDEOS[0]  # a video may be its own negative
    monkeypatch.setattr(vthcl, "_draw", lambda *_, **__: drawn)
    out = vthcl(_features(), _batch())
    assert out.loss.item() == pytest.approx(_written_out(vthcl, _features(), drawn), abs=1e-10)
    before = _banks(vthcl)
    z = _embedded(vthcl, _features())
    out.loss.backward()
    assert all(np.array_equal(before[n], b) for n, b in _banks(vthcl).items())  # not yet

    vthcl.commit(out.pending, step=0)
    for name, bank in _banks(vthcl).items():
        layer, _, pathway = name.rpartition("_")
        expected = before[name].copy()
        for i, video in enumerate(VIDEOS):
            row = (before[name][video] + z[f"{layer}.{pathway}"][i]) / 2
            expected[video] = row / np.linalg.norm(row)
        np.testing.assert_allclose(bank, expected, atol=1e-12)
    # The next loss reads the updated banks.
    later = vthcl(_features(1), _batch(1))
    assert later.loss.item() == pytest.approx(_written_out(vthcl, _features(1), drawn), abs=1e-10)


def test_weights_of_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.randint(7, (3, 9), generator=torch.Generator().manual_seed(1))
    losses = []
    for weights in ({}, {"layer3": 0.0}, {"layer4": 0.0}, {"layer3": 0.5}):
        vthcl = _objective(weights=weights)
        monkeypatch.setattr(vthcl, "_draw", lambda *_, **__: drawn)
        losses.append(vthcl(_features(), _batch()).loss.item())
    both, fourth, third, half = losses
    assert both == pytest.approx(third + fourth)
    assert half == pytest.approx(third / 2 + fourth)


def test_negatives_are_uniform_over_all_rows_with_replacement() -> None:
    vthcl = _objective(negatives=700)
    drawn = vthcl._draw(3, 0, device=torch.device("cpu"))
    assert drawn.shape == (3, 700)
    assert stats.chisquare(np.bincount(drawn.flatten(), minlength=7)).pvalue > 1e-4
    micro, later = (vthcl._draw(3, step, device=torch.device("cpu")) for step in (0, 1))
    assert not torch.equal(drawn, micro)
    assert not torch.equal(drawn, later)
    assert torch.equal(drawn, _objective(negatives=700)._draw(3, 0, device=torch.device("cpu")))


def test_the_training_videos_have_a_row_each() -> None:
    vthcl = _objective(videos=None)
    vthcl.prepare(torch.tensor([6, 4, 0, 20]))
    assert vthcl.videos.tolist() == [0, 4, 6, 20]
    assert {tuple(rows.shape) for rows in _banks(vthcl).values()} == {(4, 5)}
    assert vthcl(_features(), _batch()).pending["rows"].tolist() == [1, 0, 2]
    with pytest.raises(UserError, match="no row for video 5;"):
        vthcl(_features(), {"video_id": torch.tensor([4, 5, 6])})
    given = _objective(videos=7)
    given.prepare(torch.tensor([6, 4]))
    assert given.videos.tolist() == list(range(7))


def test_banks_differ_and_start_as_cmcs_do() -> None:
    banks = _banks(_objective(videos=300, embedding_dim=48))
    assert len(banks) == 4
    values = np.stack(list(banks.values()))
    bound = 1 / np.sqrt(48 / 3)
    assert stats.kstest(values.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-4
    assert len(np.unique(values)) > 0.9 * values.size
    lengths = np.linalg.norm(values, axis=2)
    assert lengths.std() > 0.03  # no unit vectors


def test_the_last_embedding_of_a_video_counts_and_sizes_are_checked() -> None:
    bank = MemoryBank(4, 2, momentum=0.25)
    start = bank.rows.clone()
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    bank.update(torch.tensor([2, 1, 2]), x)
    for row, embedding in ((2, x[2]), (1, x[1])):
        moved = 0.25 * start[row] + 0.75 * embedding
        torch.testing.assert_close(bank.rows[row], moved / moved.norm())
    assert torch.equal(bank.rows[[0, 3]], start[[0, 3]])
    with pytest.raises(UserError, match="holds 4 videos of 2 values, but this run has 5 of 2"):
        MemoryBank(5, 2).load_state_dict(bank.state_dict())


def test_mistakes() -> None:
    with pytest.raises(UserError, match="stages="):
        _objective(stages={})
    with pytest.raises(UserError, match="weights has layer9"):
        _objective(weights={"layer9": 1.0})
    with pytest.raises(UserError, match="momentum=1"):
        _objective(bank_momentum=1)
    wrong = _features() | {"layer4.fast": torch.zeros(3, 1, 64, dtype=torch.float64)}
    with pytest.raises(UserError, match=r"layer4 of the fast network has 64 .* says 4; set"):
        _objective()(wrong, _batch())


def test_requests() -> None:
    vthcl = VTHCL(num_features=2048, negatives=4, videos=2)
    slow, fast = (vthcl.requests()[f"layer2.{pathway}"] for pathway in ("slow", "fast"))
    assert (slow.encoder, slow.views, slow.layer) == ("query", ("slow",), "layer2")
    assert (fast.encoder, fast.views, fast.layer) == ("fast", ("fast",), "layer2")
    assert len(vthcl.requests()) == 6
    fewer = _objective(stages={"layer3": None, "layer4": [8, 4]})
    assert sorted(fewer.requests()) == ["layer4.fast", "layer4.slow"]
    assert sorted(fewer.banks) == ["layer4_fast", "layer4_slow"]
