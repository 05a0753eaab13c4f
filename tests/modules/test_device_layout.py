"""Memory format by the device, and compilation under unchanged names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from vclr_lightning.core.device_settings import device_settings
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch
from vclr_lightning.models import TinyBackbone, export_backbone, load_backbone
from vclr_lightning.modules import FinetuneModule, PretrainModule, device_layout

Make = Callable[..., PretrainModule]
MakeBatch = Callable[..., Batch]
Fit = Callable[..., Any]
EAGER = {"backend": "eager"}


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide as on an H100, and train on the CPU."""
    wanted = device_settings("cuda", capability=(9, 0))
    monkeypatch.setattr(device_layout, "trainer_settings", lambda trainer: wanted)


def _format(module: Any) -> set[bool]:
    networks = module.query_encoder, module.key_encoder
    last = torch.channels_last
    return {net.conv.weight.is_contiguous(memory_format=last) for net in networks}


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("asked", [None, False, True])
def test_the_device_chooses_the_format_that_nobody_gave(
    make_module: Make, make_batch: MakeBatch, fit: Fit, asked: bool | None
) -> None:
    seen: list[bool] = []
    module: Any = make_module(channels_last=asked)

    def look(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        if layer.training:  # no check of sizes
            seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    module.query_encoder.conv.register_forward_pre_hook(look)
    fit(module, [make_batch(range(4))] * 2)
    wanted = asked is not False
    assert _format(module) == {wanted}
    assert set(seen) == {wanted}
    assert module.pixels.channels_last == wanted
    buffers = [s["momentum_buffer"] for s in module.trainer.optimizers[0].state.values()]
    pictures = [b for b in buffers if b.ndim == 4]
    assert pictures
    assert all(b.is_contiguous(memory_format=torch.channels_last) == wanted for b in pictures)


def test_a_cpu_keeps_everything(make_module: Make, make_batch: MakeBatch, fit: Fit) -> None:
    by_default, plain = make_module(), make_module(channels_last=False)
    for module in (by_default, plain):
        fit(module, [make_batch(range(4))] * 2)
        assert _format(module) == {False}
    for one, other in zip(
        by_default.state_dict().values(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("on_gpu")
def test_finetuning_chooses_too_and_clips_do_not(make_network: Any) -> None:
    class Clips(nn.Module):
        num_features, clip_dims = 4, 3

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).flatten(2).mean(2)

    options: dict[str, Any] = {"num_classes": 3, "optimizer": partial(SGD, lr=0.1)}
    pictures = FinetuneModule(backbone=make_network(), **options)
    clips = FinetuneModule(backbone=Clips(), **options)
    for module in (pictures, clips):
        module._trainer = object()  # type: ignore[assignment]
        module.setup("fit")
    assert pictures.pixels.channels_last
    weight: Tensor = pictures.query_encoder.conv.weight  # type: ignore[union-attr,assignment]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not clips.pixels.channels_last


def test_compiled_and_plain_runs_continue_each_other(
    make_module: Make, make_batch: MakeBatch, fit: Fit, make_network: Any, tmp_path: Path
) -> None:
    """Bit for bit, with the backend that compiles nothing but goes the whole way."""
    batches = [make_batch(range(4 * i, 4 * i + 4)) for i in range(2)]
    network = partial(make_network, norm=True)

    def made(compiled: bool) -> PretrainModule:
        torch.manual_seed(0)
        return make_module(backbone=network(), compile=EAGER if compiled else False)

    whole = made(False)
    fit(whole, batches, max_epochs=2)
    expected = whole.state_dict()
    file = tmp_path / "last.ckpt"
    for first in (False, True):
        begun = made(first)
        fit(begun, batches).save_checkpoint(file)
        assert torch.load(file, weights_only=False)["state_dict"].keys() == expected.keys()
        resumed = made(not first)
        fit(resumed, batches, max_epochs=2, ckpt_path=str(file))
        for name, tensor in resumed.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
    started = made(True)
    started.query_encoder.load_state_dict(whole.query_encoder.state_dict())
    started.reset_key_encoder()
    for part in ("query_encoder", "key_encoder"):
        names = getattr(started, part).state_dict()
        assert all(torch.equal(v, whole.query_encoder.state_dict()[k]) for k, v in names.items())


def test_finetuning_compiled_networks_exports_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, clips = TinyBackbone(width=8), torch.randint(0, 256, (2, 2, 3, 1, 32, 32)).byte()
    options: dict[str, Any] = {"num_classes": 3, "optimizer": partial(SGD, lr=0.1)}
    plain = FinetuneModule(backbone=network, **options).eval()
    expected = plain(clips)
    compiled = FinetuneModule(backbone=network, compile=EAGER, **options).eval()
    compiled.classifier.load_state_dict(plain.classifier.state_dict())
    assert compiled.query_encoder._compiled_call_impl is not None
    assert torch.equal(compiled(clips), expected)
    export_backbone(compiled, tmp_path / "net.safetensors")
    again = load_backbone(tmp_path / "net.safetensors")
    assert again.state_dict().keys() == TinyBackbone(width=8).state_dict().keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "none_such"}, "none_such"),
        ({"modus": "fast"}, "modus"),
        ({"mode": "fastest"}, "fastest"),
        ("yes", "yes must be true, false, or arguments"),
    ],
)
def test_what_torch_compile_does_not_take_is_refused(
    make_module: Make, options: Any, said: str
) -> None:
    with pytest.raises(UserError, match=rf"module\.compile=.*{said}"):
        make_module(compile=options)


def test_maps_of_compiled_networks_are_refused(make_network: Any) -> None:
    with pytest.raises(UserError, match="layers and maps cannot be read; set compile=false"):
        FinetuneModule(
            backbone=make_network(),
            num_classes=3,
            optimizer=partial(SGD, lr=0.1),
            head="gru",
            compile=True,
        )


def test_without_a_compiler_the_run_ends_in_one_sentence() -> None:
    from vclr_lightning.app.explain import explain

    class InductorError(RuntimeError):
        """As torch raises it around what it could not do."""

    said = "InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 for more"
    assert explain(InductorError(said)) == (
        "torch.compile failed, InvalidCxxCompiler: No working C++ compiler found; mend that, or "
        "give module.compile=false"
    )
