"""What online probes learn and measure, against the same written with plain PyTorch and NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_modules import MODULES, Classifier, Samples, SimCLR, make_loader, make_trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm
from torch.utils.data import DataLoader

from vclr_lightning.callbacks import OnlineAttentiveProbe, OnlineKNN, OnlineLinearProbe
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback

pytestmark = pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*")


class Validated(Classifier):
    """Has a validation loop, and remembers the features of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        features = self.encoder(batch["image"])
        self.seen.append((features.detach().clone(), batch["label"]))
        return cross_entropy(self.head(features), batch["label"])

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self(batch["image"])


def held_out(trainer: Any = None) -> DataLoader[Any]:
    return DataLoader(Samples("classifier", 10), batch_size=4)


def of_held_out(module: Classifier, layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    module.eval()
    samples = [Samples("classifier", 10)[i] for i in range(10)]
    with torch.no_grad():
        features = layer(torch.stack([one["image"] for one in samples]))
    return features.numpy(), np.array([one["label"] for one in samples])


def vote(query: np.ndarray, bank: np.ndarray, labels: np.ndarray, *, k: int) -> int:
    cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
    nearest = np.argsort(-cosines)[:k]
    votes = np.zeros(3)
    for i in nearest:
        votes[labels[i]] += np.exp(cosines[i] / 0.07)
    return int(votes.argmax())


@pytest.mark.parametrize("own_loop", [True, False])
def test_knn_searches_the_features_of_the_epoch(own_loop: bool) -> None:
    torch.manual_seed(0)
    module = Validated()
    probe = OnlineKNN(k=3, bank=14, held_out=held_out if own_loop else None)
    trainer = make_trainer(probe)
    trainer.fit(module, make_loader("plain", "classifier"), None if own_loop else held_out())
    bank, labels = (np.concatenate(x)[-14:] for x in zip(*module.seen[-5:], strict=True))
    features, targets = of_held_out(module, module.encoder)
    hits = [vote(x, bank, labels, k=3) == y for x, y in zip(features, targets, strict=True)]
    assert trainer.callback_metrics["probe/knn/val_top1"] == pytest.approx(np.mean(hits))
    among = [
        vote(bank[i], np.delete(bank, i, 0), np.delete(labels, i), k=3) == labels[i]
        for i in range(14)
    ]
    assert trainer.callback_metrics["probe/knn/train_top1"] == pytest.approx(np.mean(among))


def test_the_linear_probe_is_a_classifier_trained_beside() -> None:
    torch.manual_seed(0)
    module = Validated()
    probe = OnlineLinearProbe(
        num_classes=3,
        held_out=held_out,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
    )
    trainer = make_trainer(probe)
    trainer.fit(module, make_loader("plain", "classifier"))
    head = nn.Linear(8, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.3, momentum=0.9)
    for features, labels in module.seen:
        loss = cross_entropy(head(layer_norm(features, (8,))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for own, expected in zip(probe.heads.parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(own, expected)
    assert trainer.callback_metrics["probe/linear/loss"] == pytest.approx(loss.item(), rel=1e-4)
    features, targets = of_held_out(module, module.encoder)
    scores = head(layer_norm(torch.from_numpy(features), (8,)))
    hits = (scores.argmax(1).numpy() == targets).mean()
    assert trainer.callback_metrics["probe/linear/val_top1"] == pytest.approx(hits)


def test_several_layers_and_tokens() -> None:
    torch.manual_seed(0)
    probes = [
        OnlineKNN(features=["encoder.0", "encoder"]),
        OnlineLinearProbe(features={"early": "encoder.0", "late": "encoder"}, num_classes=3),
        OnlineAttentiveProbe(features="encoder.2", num_classes=3, heads=2, held_out=held_out),
    ]
    trainer = make_trainer(*probes, max_epochs=12)
    trainer.fit(Validated(), make_loader("plain", "classifier"), held_out())
    found = {name: float(v) for name, v in trainer.callback_metrics.items() if "probe" in name}
    assert set(found) == {
        *(f"probe/knn/{a}/{b}_top1" for a in ("encoder.0", "encoder") for b in ("train", "val")),
        *(
            f"probe/linear/{a}/{b}"
            for a in ("early", "late")
            for b in ("loss", "train_top1", "val_top1")
        ),
        *(f"probe/attentive/{b}" for b in ("loss", "train_top1", "val_top1")),
    }
    assert probes[2].heads[0].attention.num_heads == 2
    assert found["probe/linear/late/val_top1"] > 0.6  # brightness, which is easy
    assert found["probe/attentive/loss"] < 1.1


def test_views_of_a_sample_have_its_label() -> None:
    probe = OnlineLinearProbe(labels=lambda batch: torch.arange(len(batch[0])) % 2, num_classes=2)
    trainer = make_trainer(probe)
    trainer.fit(SimCLR(), make_loader("plain", "simclr"))
    assert trainer.callback_metrics["probe/linear/loss"] > 0


def test_samples_without_a_label_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Half(Validated):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
            self.seen.append((batch["label"], batch["label"]))
            return super().training_step(batch, batch_idx)

    def labels(batch: dict[str, Any]) -> Tensor:
        return torch.where(batch["label"] == 1, -1, batch["label"])

    knn = OnlineKNN(labels=labels, held_out=held_out, bank=100)
    nothing = OnlineLinearProbe(labels=lambda batch: -torch.ones(4).long(), num_classes=3)
    trainer = make_trainer(knn, nothing, max_epochs=1)
    trainer.fit(Half(), make_loader("plain", "classifier"))
    assert set(knn.recent.gathered()[""].tolist()) == {0, 2}
    assert len(knn.recent.gathered()["encoder"]) == 13  # of 20
    assert any("learns nothing: no sample had a label" in r.getMessage() for r in caplog.records)
    assert all(not p.any() for p in nothing.heads.parameters())


@pytest.mark.parametrize("probe", [OnlineKNN, OnlineLinearProbe, OnlineAttentiveProbe])
def test_a_run_that_was_stopped_continues_bit_by_bit(probe: Any, tmp_path: Path, fit: Any) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 9:
                raise RuntimeError("killed")

    states = []
    for stopped in (False, True):
        folder = tmp_path / str(stopped)

        def make() -> Any:
            return probe(
                features="net.0",
                labels=lambda b: b["video_id"] % 3,
                num_classes=3,
                **({"bank": 9} if probe is OnlineKNN else {}),
            )

        if stopped:
            with pytest.raises(RuntimeError, match="killed"):
                fit(folder, make(), Stop())
        last = make()
        _, trainer = fit(folder, last)
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if "probe" in k}
        states.append((last.state_dict(), values))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert states[0][1]


class Probing(OnlineLinearProbe):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"num_classes": 3, **options})


@pytest.mark.parametrize(
    ("kind", "make", "says"),
    [
        ("simclr", Probing, "the probe linear finds no classes .* a list; give their key"),
        ("classifier", lambda: Probing(labels="klass"), "finds no classes"),
        ("classifier", lambda: Probing(num_classes=2), "the label 2 is none of num_classes=2"),
        ("classifier", OnlineLinearProbe, "neither Classifier nor its data say how many classes"),
        ("classifier", lambda: Probing(held_out="val"), "needs a data module with frames_loader"),
        ("classifier", lambda: OnlineKNN(k=0), "k=0"),
        ("classifier", lambda: OnlineKNN(every_n_epochs=0), "every_n_epochs=0"),
    ],
)
def test_what_is_missing_is_said(kind: str, make: Any, says: str) -> None:
    loader = make_loader("sequential", kind)
    with pytest.raises(UserError, match=says):
        make_trainer(make()).fit(MODULES[kind](), loader)
