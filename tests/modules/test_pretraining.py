"""The pretraining module in one process: what a step computes, changes and leaves alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.pixels import IMAGENET_MEAN, IMAGENET_STD
from vclr_lightning.models import TinyBackbone, WrappedBackbone
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame, Objective, VideoLevel

# Lightning's own, about torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

Make = Callable[..., PretrainModule]
MakeBatch = Callable[..., Batch]
Fit = Callable[..., Trainer]


def step(module: PretrainModule, optimizer: torch.optim.Optimizer, batch: Batch, i: int) -> float:
    """One step of a loop of one's own."""
    module.on_train_batch_start(batch, i)
    out = module.training_step(batch, i)
    out["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    return out["loss"].item()


def pictures(clips: Tensor) -> Tensor:
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (clips[:, :, 0].double() / 255 - mean[:, None, None]) / std[:, None, None]


@torch.no_grad()
def expected_losses(module: Any, batch: Batch) -> dict[str, float]:
    """The four losses of a batch, video by video, each frame encoded on its own."""
    f_q, f_k = module.query_encoder, module.key_encoder
    heads = module.objectives
    sums: dict[str, list[Tensor]] = {name: [] for name in ("inter", "intra", "video", "order")}

    def nce(q: Tensor, k: Tensor, negatives: Tensor) -> Tensor:
        logits = torch.cat([(q @ k)[None], negatives @ q]) / 0.1
        return cross_entropy(logits[None], torch.tensor([0]))

    for b in range(len(batch["video_id"])):
        views = {name: pictures(view[b]) for name, view in batch["views"].items()}
        x1 = views["anchor"][batch["rows"]["x1"][b]]
        pool = torch.cat([views["anchor"], views.get("extra", views["anchor"][:0])])
        frames = [views["second"], *(pool[batch["rows"][x][b]] for x in ("x2", "x3"))]
        for name in ("inter", "intra"):
            head = heads[name]
            q = normalize(head.query_head(f_q(x1))[0], dim=0)
            ks = [normalize(head.key_head(f_k(x))[0], dim=0) for x in frames]
            if name == "inter":
                sums[name] += [nce(q, k, head.queue.rows) for k in ks]
            else:
                sums[name].append(nce(q, ks[0], torch.stack(ks[1:])))
        v, v_ = f_q(views["anchor"]), f_k(views["positive"])
        video = heads["video"]
        q = normalize(video.query_head(v.mean(0)), dim=0)
        sums["video"].append(nce(q, normalize(video.key_head(v_.mean(0)), dim=0), video.queue.rows))
        order, targets = heads["order"], batch["targets"]
        o = torch.cat(
            [
                normalize(order.query_head(v), dim=1)[targets["anchor_order"][b]].flatten(),
                normalize(order.key_head(v_), dim=1)[targets["positive_order"][b]].flatten(),
            ]
        )
        label = targets["shuffled"][b][None]
        sums["order"].append(cross_entropy(order.classifier(o)[None], label))
    return {name: float(torch.stack(losses).mean()) for name, losses in sums.items()}


@pytest.mark.parametrize("batches", ["all", "request"])
@pytest.mark.parametrize("segments", [2, 3, 5])
def test_losses_equal_those_of_frames_encoded_one_by_one(
    make_module: Make, make_batch: MakeBatch, segments: int, batches: str
) -> None:
    module = make_module(segments=segments, batches=batches, weights={"intra": 0.5}).double()
    optimizer = module.configure_optimizers()
    for i in range(3):  # the momentum encoder is no longer a copy, the queues hold keys
        batch = make_batch(range(4 * i, 4 * i + 4), segments=segments)
        expected = expected_losses(module, batch)
        out = module.training_step(batch, i)
        assert {k: float(v) for k, v in out["losses"].items()} == pytest.approx(expected, abs=1e-10)
        total = sum((0.5 if name == "intra" else 1) * loss for name, loss in expected.items())
        assert out["loss"].item() == pytest.approx(total, abs=1e-10)
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_every_frame_is_encoded_once(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module()
    module.training_step(make_batch(range(4)), 0)
    assert module.query_encoder.calls == [4 * 3]
    assert module.key_encoder.calls == [4 * 6]


def test_the_released_code_encodes_frames_again(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module(batches="request")
    module.training_step(make_batch(range(4)), 0)
    assert module.query_encoder.calls == [4, 12]  # x1, then the tuple
    assert module.key_encoder.calls == [4, 4, 4, 12]  # x1', x2, x3, then the tuple


def normalised(module: Any, clips: Tensor, statistics: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Features of one BatchNorm batch ``(N, C, 1, H, W)``, by hand; adds its statistics."""
    encoder = module.query_encoder
    x = pictures(clips.transpose(1, 2)[None])[0]
    maps = torch.nn.functional.conv2d(x, encoder.conv.weight, encoder.conv.bias, stride=3)
    values = maps.transpose(0, 1).flatten(1)  # (F, N h w)
    statistics.append((values.mean(1), values.var(1)))
    shape = (1, -1, 1, 1)
    spread = (values.var(1, unbiased=False) + encoder.norm.eps).sqrt()
    maps = (maps - values.mean(1).view(shape)) / spread.view(shape)
    return torch.nn.functional.gelu(maps).flatten(2).mean(2)


@torch.no_grad()
def test_the_released_code_normalises_each_frame_of_the_batch_by_itself(
    make_module: Make, make_batch: MakeBatch
) -> None:
    """Section 9 of the method; the query encoder and its copy have the same weights here."""
    module: Any = make_module(norm=True, batches="request", batchnorm="none").double()
    features: dict[str, Any] = {}
    for name, objective in module.objectives.items():
        objective.register_forward_pre_hook(lambda _m, a, n=name: features.update({n: a[0]}))
    batch = make_batch(range(4))
    module.training_step(batch, 0)
    views, every = batch["views"], torch.arange(4)
    keys: list[tuple[Tensor, Tensor]] = []
    queries: list[tuple[Tensor, Tensor]] = []
    expected = {
        "second": normalised(module, views["second"][:, 0], keys),
        "x2": normalised(module, views["anchor"][every, batch["rows"]["x2"][:, 0]], keys),
        "x3": normalised(module, views["anchor"][every, batch["rows"]["x3"][:, 0]], keys),
        "key": normalised(module, views["positive"].flatten(0, 1), keys).view(4, 3, -1),
        "x1": normalised(module, views["anchor"][every, batch["rows"]["x1"][:, 0]], queries),
        "tuple": normalised(module, views["anchor"].flatten(0, 1), queries).view(4, 3, -1),
    }
    close = {"atol": 1e-12, "rtol": 0.0}
    reads = {
        "inter": {"key0": "second", "key1": "x2", "key2": "x3"},
        "intra": {"positive": "second", "negative0": "x2", "negative1": "x3"},
    }
    for name, requests in reads.items():
        for request, frame in requests.items():
            torch.testing.assert_close(features[name][request][:, 0], expected[frame], **close)
        torch.testing.assert_close(features[name]["query"][:, 0], expected["x1"], **close)
    for name in ("video", "order"):
        torch.testing.assert_close(features[name]["key"], expected["key"], **close)
        torch.testing.assert_close(features[name]["query"], expected["tuple"], **close)
    for encoder, batches in ((module.query_encoder, queries), (module.key_encoder, keys)):
        mean, var = torch.zeros(6).double(), torch.ones(6).double()
        for own_mean, own_var in batches:  # in the order that the released code encodes them
            mean, var = 0.9 * mean + 0.1 * own_mean, 0.9 * var + 0.1 * own_var
        torch.testing.assert_close(encoder.norm.running_mean, mean, **close)
        torch.testing.assert_close(encoder.norm.running_var, var, **close)


def test_each_released_key_has_a_shuffle_of_its_own(
    make_module: Make, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vclr_lightning.modules import key_batchnorm

    orders: list[list[int]] = []
    draw = torch.randperm

    def drawn(*args: Any, **options: Any) -> Tensor:
        orders.append((order := draw(*args, **options)).tolist())
        return order

    monkeypatch.setattr(key_batchnorm.torch, "randperm", drawn)
    module: Any = make_module(norm=True, batches="request")
    for step in (0, 0, 1):
        module.training_step(make_batch(range(16)), step)
    first, again, other = orders[:4], orders[4:8], orders[8:]
    assert first == again  # a function of the step
    assert len({tuple(order) for order in first + other}) == 8


def test_split_batchnorm_encodes_keys_in_groups(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module(norm=True, batchnorm_groups=2)
    module.training_step(make_batch(range(4)), 0)
    assert module.query_encoder.calls == [12]
    assert module.key_encoder.calls == [12, 12]
    assert module.key_encoder.norm.training
    assert int(module.key_encoder.norm.num_batches_tracked) == 2


def test_key_chunks_change_nothing_without_batchnorm(
    make_module: Make, make_batch: MakeBatch
) -> None:
    whole, chunked = make_module(), make_module(chunk=5)
    losses = [m.training_step(make_batch(range(4)), 0)["loss"].item() for m in (whole, chunked)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert chunked.key_encoder.calls == [5, 5, 5, 5, 4]  # type: ignore[union-attr]


def test_weight_zero_costs_nothing(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module(weights={"inter": 0, "intra": 0})
    assert module.required_views == {"anchor", "positive"}
    assert set(module.objectives) == {"video", "order"}
    assert not any(".inter." in name or ".intra." in name for name in module.state_dict())
    batch = make_batch(range(4))
    batch["views"] = {name: batch["views"][name] for name in module.required_views}
    module.training_step(batch, 0)
    assert module.query_encoder.calls == [12]
    assert module.key_encoder.calls == [12]


def test_no_gradient_reaches_the_key_side(make_module: Make, make_batch: MakeBatch) -> None:
    module = make_module()
    optimizer = module.configure_optimizers()
    module.training_step(make_batch(range(4)), 0)["loss"].backward()
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        is_key = "key_" in name
        assert parameter.requires_grad is not is_key, name
        assert (parameter.grad is None) is is_key, name
        assert (id(parameter) in trained) is not is_key, name


def test_the_key_side_starts_as_a_copy_and_follows(
    make_module: Make, make_batch: MakeBatch
) -> None:
    module = make_module(norm=True)
    objectives = dict(module._objectives())
    pairs = [(query, key) for _, query, key in module._graph.followers(objectives)]
    assert len(pairs) == 5  # the encoders and four heads
    for query, key in pairs:
        for q, k in zip(query.state_dict().values(), key.state_dict().values(), strict=True):
            assert torch.equal(q, k)
    optimizer = module.configure_optimizers()
    for i in range(2):
        before = [[k.clone() for k in key.parameters()] for _, key in pairs]
        step(module, optimizer, make_batch(range(4)), i)
        for (query, key), old in zip(pairs, before, strict=True):
            for q, k, o in zip(query.parameters(), key.parameters(), old, strict=True):
                torch.testing.assert_close(k, 0.9 * o + 0.1 * q.detach())


def test_reset_copies_loaded_weights(make_module: Make) -> None:
    module: Any = make_module()
    with torch.no_grad():
        module.query_encoder.conv.weight.fill_(2)
    module.reset_key_encoder()
    assert module.key_encoder.conv.weight.eq(2).all()


def test_logits_are_taken_before_the_keys_enter(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module()
    optimizer = module.configure_optimizers()
    queue = module.objectives["inter"].queue
    before = queue.rows.clone()
    out = module.training_step(make_batch(range(4)), 0)
    out["loss"].backward()
    assert torch.equal(queue.rows, before)
    assert int(queue.pointer) == 0
    optimizer.step()
    assert int(queue.pointer) == 12
    assert queue.ids[:12].tolist() == [0, 1, 2, 3] * 3
    assert module.objectives["video"].queue.ids[:5].tolist() == [0, 1, 2, 3, -1]


def test_accumulation_equals_the_larger_batch(
    make_module: Make, make_batch: MakeBatch, fit: Fit
) -> None:
    whole, parts = (make_module(queue_size=50) for _ in range(2))
    options: dict[str, Any] = {"precision": "64-true"}
    fit(whole, [make_batch(range(8 * i, 8 * i + 8)) for i in range(3)], **options)
    micro = [make_batch(range(4 * i, 4 * i + 4)) for i in range(6)]
    fit(parts, micro, accumulate_grad_batches=2, **options)
    states = parts.state_dict()
    for name, value in whole.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(states[name], value, atol=1e-12, rtol=1e-10, msg=name)
        else:
            assert torch.equal(states[name], value), name
    assert int(states["objectives.inter.queue.pointer"]) == 3 * 24 % 50


def test_logged_values_are_means_over_micro_batches(
    make_module: Make, make_batch: MakeBatch, fit: Fit
) -> None:
    batches = [make_batch(range(4)), make_batch(range(4, 8))]
    alone = make_module()
    losses = [alone.training_step(batch, i)["loss"].item() for i, batch in enumerate(batches)]
    trainer = fit(make_module(), batches, accumulate_grad_batches=2)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_logs_every_measure(make_module: Make, make_batch: MakeBatch, fit: Fit) -> None:
    trainer = fit(make_module(), [make_batch(range(4))] * 2)
    contrastive = {"loss", "top1", "positive_similarity", "negative_similarity"}
    queued = contrastive | {"queue_fill", "queue_age", "spread", "effective_rank"}
    expected = {"inter": queued, "video": queued, "intra": contrastive}
    expected["order"] = {"loss", "accuracy", "chance"}
    names = {f"train/{name}/{value}" for name, values in expected.items() for value in values}
    assert set(trainer.callback_metrics) == names | {"train/loss"}
    assert float(trainer.callback_metrics["train/inter/queue_age"]) == 1


def test_logs_only_when_the_trainer_does(
    make_module: Make, make_batch: MakeBatch, fit: Fit
) -> None:
    assert not fit(make_module(), [make_batch(range(4))] * 2, log_every_n_steps=0).callback_metrics


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_changes_nothing(
    make_module: Make, make_batch: MakeBatch, fit: Fit, fused: bool
) -> None:
    from pytorch_lightning import Callback
    from pytorch_lightning.plugins import MixedPrecision

    states: list[dict[str, Tensor]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
            states.append({name: v.clone() for name, v in module.state_dict().items()})

    module = make_module(optimizer=partial(torch.optim.SGD, lr=0.1, fused=fused))
    start = {name: v.clone() for name, v in module.state_dict().items()}
    # The first loss overflows when it is scaled, the second does not.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-127)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    fit(module, [make_batch(range(4)), make_batch(range(4, 8))], Watch(), plugins=[plugin])
    for name, value in start.items():
        assert torch.equal(states[0][name], value), name
    assert not torch.equal(states[1]["key_encoder.conv.weight"], start["key_encoder.conv.weight"])
    # Only the second batch's keys, from the first row on.
    assert states[1]["objectives.video.queue.ids"][:5].tolist() == [4, 5, 6, 7, -1]
    assert int(states[1]["objectives.inter.queue.pointer"]) == 12


class Dropping(nn.Module):
    """Draws from the global generator."""

    num_features, clip_dims = 6, 2

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x))).flatten(2).mean(2)


def test_resumes_bit_equal(
    make_module: Make, make_batch: MakeBatch, fit: Fit, tmp_path: Any
) -> None:
    batches = [make_batch(range(4 * i, 4 * i + 4)) for i in range(3)]
    through = make_module(backbone=Dropping)
    torch.manual_seed(5)
    fit(through, batches, max_epochs=2)

    first = make_module(backbone=Dropping)
    trainer = fit(first, batches, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(isinstance(value, Tensor) for value in saved["state_dict"].values())

    torch.manual_seed(99)
    resumed = make_module(backbone=Dropping)
    fit(resumed, batches, max_epochs=2, ckpt_path=str(tmp_path / "last.ckpt"))
    states = resumed.state_dict()
    assert states.keys() == through.state_dict().keys()
    for name, value in through.state_dict().items():
        assert torch.equal(states[name], value), name


def test_checkpoints_of_another_queue_or_segments_are_refused(make_module: Make) -> None:
    saved = make_module().state_dict()
    with pytest.raises(UserError, match=r"20 keys of 4 values.*run's queue 30.*queue_size=20"):
        make_module(queue_size=30).load_state_dict(saved)
    with pytest.raises(UserError, match="num_segments=3, but this run has 2"):
        make_module(segments=2, weights={"inter": 0}).load_state_dict(saved)


def test_encode_leaves_the_module_as_it_is(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module(norm=True)
    module.query_encoder.norm.eval()  # one layer that its owner has frozen
    module.query_encoder.norm.running_mean.fill_(0.5)
    frames = make_batch(range(3))["views"]["second"][:, 0]
    features = module.encode(frames)
    assert not features.requires_grad
    assert not module.query_encoder.norm.training
    assert module.query_encoder.training
    module.query_encoder.eval()
    expected = module.query_encoder(pictures(frames).float())
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)


def test_channels_last(make_module: Make, make_batch: MakeBatch) -> None:
    seen: list[bool] = []
    module: Any = make_module(channels_last=True)
    module.query_encoder.conv.register_forward_pre_hook(
        lambda _, x: seen.append(x[0].is_contiguous(memory_format=torch.channels_last))
    )
    assert module.query_encoder.conv.weight.is_contiguous(memory_format=torch.channels_last)
    loss = module.training_step(make_batch(range(4)), 0)["loss"]
    assert seen == [True]
    plain = make_module().training_step(make_batch(range(4)), 0)["loss"]
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


def test_deterministic_mode(make_module: Make, make_batch: MakeBatch, fit: Fit) -> None:
    try:
        trainer = fit(make_module(norm=True), [make_batch(range(4))] * 2, deterministic=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_bf16_mixed(make_module: Make, make_batch: MakeBatch, fit: Fit) -> None:
    module: Any = make_module(norm=True)
    trainer = fit(module, [make_batch(range(4))] * 2, precision="bf16-mixed")
    assert trainer.callback_metrics["train/loss"].dtype == torch.float32
    assert trainer.callback_metrics["train/loss"].isfinite()
    rows = module.objectives["inter"].queue.rows
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_a_network_in_evaluation_mode_is_trained(
    make_module: Make, make_batch: MakeBatch, fit: Fit, make_network: Any
) -> None:
    """As ``load_backbone`` gives it: by a loop of one's own, and by a trainer."""
    module: Any = make_module(backbone=make_network(norm=True).eval())
    module.training_step(make_batch(range(4)), 0)
    for encoder in (module.query_encoder, module.key_encoder):
        assert encoder.training
        assert int(encoder.norm.num_batches_tracked) > 0
    module = make_module(backbone=make_network(norm=True)).eval()  # for its encode, say
    fit(module, [make_batch(range(4)), make_batch(range(4, 8))])
    assert int(module.query_encoder.norm.num_batches_tracked) == 2
    assert int(module.key_encoder.norm.num_batches_tracked) == 2 * 4  # groups of keys


def test_a_network_that_would_stay_as_it_is_is_refused(
    make_module: Make, make_network: Any
) -> None:
    network = make_network().requires_grad_(False)
    with pytest.raises(UserError, match=r"backbone Network requires a gradient.*requires_grad_"):
        make_module(backbone=network)
    network.conv.bias.requires_grad_(True)
    make_module(backbone=network)


def test_single_frames_for_a_network_of_clips_are_refused(make_module: Make) -> None:
    net = nn.Sequential(nn.Conv3d(3, 6, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    module = make_module(backbone=WrappedBackbone(net, num_features=6, clip_dims=3))
    frames = torch.zeros(2, 3, 1, 12, 12, dtype=torch.uint8)
    with pytest.raises(UserError, match="takes clips, but the data gives single frames"):
        module.encode(frames)
    assert module.encode(frames.expand(-1, -1, 4, -1, -1)).shape == (2, 6)


def test_pictures_without_a_time_axis_are_told_from_clips(make_module: Make) -> None:
    pictures = torch.zeros(2, 3, 12, 12, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"have \(3, 12, 12\): unsqueeze\(2\)"):
        make_module().encode(pictures)
    assert make_module().encode(pictures.unsqueeze(2)).shape == (2, 6)


def test_compiling_keeps_the_names(make_module: Make) -> None:
    compiled = make_module(compile=True)
    assert compiled.state_dict().keys() == make_module().state_dict().keys()
    assert compiled.query_encoder._compiled_call_impl is not None
    assert compiled.key_encoder._compiled_call_impl is not None  # type: ignore[union-attr]


class Dense(Objective):
    """Reads maps of the query encoder, and has no momentum encoder."""

    def __init__(self, *, num_features: int) -> None:
        super().__init__()
        self.seen: dict[str, torch.Size] = {}

    def requests(self) -> dict[str, Request]:
        return {
            "map": Request("query", ("anchor",), pooled=False),
            "features": Request("query", ("anchor",), rows="x1"),
        }

    def forward(self, features: Any, batch: Batch) -> ObjectiveOutput:
        self.seen = {name: value.shape for name, value in features.items()}
        pooled = torch.nn.functional.gelu(features["map"]).flatten(3).mean(3)
        rows = batch["rows"]["x1"][:, :1]
        own = pooled[torch.arange(len(rows))[:, None], rows]
        return ObjectiveOutput((own - features["features"]).square().sum())


def test_maps_without_a_momentum_encoder(make_module: Make, make_batch: MakeBatch) -> None:
    module: Any = make_module(objectives={"dense": Dense})
    assert list(module.encoders) == ["query"]
    out = module.training_step(make_batch(range(4)), 0)
    assert module.objectives["dense"].seen == {"map": (4, 3, 6, 3, 3), "features": (4, 1, 6)}
    assert out["loss"].item() == pytest.approx(0, abs=1e-10)
    assert module.query_encoder.calls == [12, 12]  # its features might be another thing


def _indexed(out: ObjectiveOutput) -> Any:
    return ObjectiveOutput(out.loss[99])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: None, "it returns NoneType, not an ObjectiveOutput"),
        (lambda out: out.loss, "it returns Tensor, not an ObjectiveOutput"),
        (lambda out: ObjectiveOutput(out.loss[None]), r"its loss is a tensor \(1,\), not"),
        (lambda out: ObjectiveOutput(1.0), "its loss is 1.0, not"),
        (lambda out: ObjectiveOutput(out.loss, {"top1": 0.5}), "its top1 is 0.5, not"),
        (lambda out: ObjectiveOutput(out.loss, pending={"k": out.loss}), "its pending k is not"),
        (lambda out: ObjectiveOutput(out.loss.detach()), "depends on no parameter"),
        (_indexed, "IndexError"),
    ],
)
def test_an_objective_at_fault_is_named(
    make_module: Make,
    make_batch: MakeBatch,
    change: Callable[[ObjectiveOutput], Any],
    said: str,
) -> None:
    class Giving(Dense):
        def forward(self, features: Any, batch: Batch) -> Any:
            return change(super().forward(features, batch))

    module = make_module(objectives={"mine": Giving})
    with pytest.raises(CodeFault, match=rf"Giving .*fails on the objective mine: .*{said}"):
        module.training_step(make_batch(range(4)), 0)


def test_a_commit_at_fault_is_named(make_module: Make, make_batch: MakeBatch, fit: Fit) -> None:
    class Committing(Dense):
        def forward(self, features: Any, batch: Batch) -> Any:
            out = super().forward(features, batch)
            return ObjectiveOutput(out.loss, pending={"rows": features["features"]})

        def commit(self, pending: Any, step: int) -> None:
            assert not pending["rows"].requires_grad
            raise KeyError("rowz")

    module = make_module(objectives={"mine": Committing})
    with pytest.raises(CodeFault, match=r"Committing .*fails on the objective mine: KeyError"):
        fit(module, [make_batch(range(4))])


class Head(nn.Module):
    """Features that are no average of the map, dropout between them, and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).flatten(2).amax(2))
        return y


def headed() -> WrappedBackbone:
    net = Head()
    net.maps = net.body.forward  # type: ignore[assignment]
    return WrappedBackbone(net, num_features=6, map_method="maps")


class Maps(Objective):
    """Reads maps of everything that the video-level loss reads features of."""

    def __init__(self, *, num_features: int) -> None:
        super().__init__()

    def requests(self) -> dict[str, Request]:
        return {
            "query": Request("query", ("anchor",), pooled=False),
            "key": Request("key", ("positive",), pooled=False),
        }

    def forward(self, features: Any, batch: Batch) -> ObjectiveOutput:
        assert features["query"].shape[:2] == features["key"].shape[:2] == (4, 3)
        assert features["query"].ndim == 5
        return ObjectiveOutput(0 * features["query"].sum())


@pytest.mark.parametrize("batches", ["all", "request"])
@pytest.mark.parametrize("backbone", [lambda: TinyBackbone(width=8, stages=1), headed])
def test_a_request_for_maps_changes_no_feature_of_others(
    make_module: Make, make_batch: MakeBatch, backbone: Callable[[], nn.Module], batches: str
) -> None:
    video = partial(VideoLevel, embedding_dim=4, queue_size=8)
    seen, states = [], []
    for others in ({}, {"dense": Maps}):
        torch.manual_seed(0)
        module: Any = make_module(
            objectives={"video": video, **others},
            backbone=backbone(),
            batches=batches,
            channels_last=True,
        )
        optimizer = module.configure_optimizers()
        seen.append([step(module, optimizer, make_batch(range(4)), i) for i in range(2)])
        states.append(module.state_dict())
    assert seen[0] == seen[1]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class Clips(nn.Module):
    num_features, clip_dims = 5, 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:3] == (3, 4)
        return self.conv(x).flatten(2).mean(2)


def test_clips_of_several_frames(make_module: Make, make_batch: MakeBatch) -> None:
    batch = make_batch(range(4))
    batch["views"] = {name: v.expand(-1, -1, -1, 4, -1, -1) for name, v in batch["views"].items()}
    for channels_last in (False, True):
        module = make_module(backbone=Clips, channels_last=channels_last)
        assert module.training_step(batch, 0)["loss"].isfinite()
    with pytest.raises(UserError, match=r"single frames.*clips of 4 frames.*frames_per_clip=1"):
        make_module().training_step(batch, 0)


def test_a_batch_without_a_view_is_refused(make_module: Make, make_batch: MakeBatch) -> None:
    batch = make_batch(range(4))
    del batch["views"]["positive"]
    with pytest.raises(UserError, match="give the data module a sampler"):
        make_module().training_step(batch, 0)
    batch = make_batch(range(4))
    del batch["rows"]["x2"]
    with pytest.raises(UserError, match="no selection 'x2'"):
        make_module().training_step(batch, 0)


@pytest.mark.parametrize("segments", [1, 2, 4, 7])
def test_any_number_of_segments(
    make_module: Make, make_batch: MakeBatch, fit: Fit, segments: int
) -> None:
    module = make_module(segments=segments)
    assert ("order" in module.objectives) is (segments > 1)
    trainer = fit(module, [make_batch(range(4), segments=segments)])
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"max_epochs": 3}, "24 keys, 3 times"),  # queue_size
        ({"max_epochs": 2}, "16 keys, 2 times"),  # all that the run yields
        ({"max_epochs": 1}, None),
        ({"max_epochs": -1, "max_steps": 2}, None),
        ({"max_epochs": 9, "max_steps": 3}, "12 keys, 1.5 times"),
        ({"max_epochs": 9, "max_steps": 1, "accumulate_grad_batches": 2}, None),
        ({"max_epochs": 2, "limit_train_batches": 1}, None),  # two batches of two
        ({"max_epochs": 3, "limit_train_batches": 1}, "12 keys, 1.5 times"),
        ({"max_epochs": 4, "overfit_batches": 1}, "16 keys, 4 times"),
    ],
)
def test_queues_that_will_hold_a_video_s_older_keys_are_warned_of(
    make_module: Make,
    make_batch: MakeBatch,
    fit: Fit,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    warned: str | None,
) -> None:
    batches = [make_batch(range(4)), make_batch(range(4, 8))]
    video = partial(VideoLevel, embedding_dim=4, queue_size=24)
    module: Any = make_module(objectives={"video": video})
    with caplog.at_level(logging.WARNING, logger="vclr_lightning"):
        fit(module, batches, **options)
    said = [f"The queue of 'video' will hold {warned} those of one pass"] if warned else []
    assert [message.partition(" over")[0] for message in caplog.messages] == said
    ids = module.objectives["video"].queue.ids
    if "limit_train_batches" not in options:  # this loader does not shuffle
        assert (int(ids[ids >= 0].bincount().max()) > 1) == (warned is not None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"momentum": 1.5}, "momentum=1.5"),
        ({"momentum": "high"}, "momentum='high' of a momentum encoder must be a number"),
        ({"momentum": None}, "momentum=None of a momentum encoder must be a number"),
        ({"batchnorm_groups": 0}, "batchnorm_groups=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"batchnorm": "ghost"}, "batchnorm='ghost'"),
        ({"batches": "some"}, "batches='some'"),
        ({"backbone": nn.Linear(2, 2)}, "Linear has no whole number 'num_features'"),
        ({"weights": {"moco": 1}}, "weights name moco"),
    ],
)
def test_wrong_values_are_refused(make_module: Make, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_module(**options)


def test_two_objectives_of_one_class_have_their_own_state(
    make_module: Make, make_batch: MakeBatch, fit: Fit
) -> None:
    video = partial(VideoLevel, embedding_dim=4)
    objectives = {"long": partial(video, queue_size=30), "short": partial(video, queue_size=10)}
    module: Any = make_module(objectives=objectives, weights={"short": 0.5})
    trainer = fit(module, [make_batch(range(4))])
    assert {"train/long/loss", "train/short/loss"} <= set(trainer.callback_metrics)
    assert module.query_encoder.calls == [2, 12]  # two clips on trial
    assert [len(o.queue.rows) for o in module.objectives.values()] == [30, 10]


def test_frame_objectives_alone(make_module: Make, make_batch: MakeBatch) -> None:
    objectives = {
        "inter": partial(InterFrame, embedding_dim=4, queue_size=8),
        "intra": partial(IntraFrame, embedding_dim=4),
    }
    module: Any = make_module(objectives=objectives)
    module.training_step(make_batch(range(4)), 0)
    assert module.query_encoder.calls == [4]
    assert module.key_encoder.calls == [12]


class LargestAllocation(TorchDispatchMode):
    """Remembers the largest tensor that an operation put into memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        storages = {x.untyped_storage().data_ptr() for x in tree_leaves(args) if torch.is_tensor(x)}
        for x in tree_leaves(out):
            if torch.is_tensor(x) and x.untyped_storage().data_ptr() not in storages:
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_no_operation_of_a_step_allocates_as_much_as_a_queue(
    make_module: Make, make_batch: MakeBatch
) -> None:
    rows, dim = 2**15, 4
    module: Any = make_module(queue_size=rows, norm=True)
    optimizer = module.configure_optimizers()
    with LargestAllocation() as largest:  # forward, backward, optimizer, momentum and queues
        step(module, optimizer, make_batch(range(4)), 0)
    assert module.objectives["inter"].queue.rows.shape == (rows, dim)
    assert int(module.objectives["inter"].queue.pointer) == 12
    assert rows < largest.numel < rows * dim
