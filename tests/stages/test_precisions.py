"""Every stage in mixed precision, and what does not train in half precision says so at once."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train
from vclr_lightning.data.synthetic import generate
from vclr_lightning.functional.embedding import effective_rank
from vclr_lightning.functional.grad_cam import grad_cam
from vclr_lightning.models.bmn import BMN
from vclr_lightning.stages.shared.hardware import Hardware, fastest_precision

pytestmark = pytest.mark.filterwarnings("ignore:.*fp16 is not supported on CPU")

NETWORK = ["backbone=tiny", "backbone.width=8", "backbone.stages=2"]
TRAINS = ["trainer=cpu", "trainer.threads=1", "data.num_workers=0", "batch_size=4", "epochs=1"]
SMALL = [*NETWORK, *TRAINS, "image_size=32", "callbacks.online.every_n_epochs=1"]
PRETRAIN = [*SMALL, "queue_size=20", "optim.scheduler.warmup_epochs=0"]
FINISHED = ["trainer=cpu", "trainer.threads=1", "data.num_workers=0", "ckpt=base/last.ckpt"]
BMN_SMALL = ["positions=20", "model.hidden_1d=16", "model.hidden_2d=8", "model.hidden_3d=16"]
FEATURES = ["features.every=4", "features.transform.size=32", "features.transform.resize=32"]
STAGES = {
    "pretrain": PRETRAIN,
    "finetune": [*SMALL, "num_segments=3", "module.head=tsm", "optim.scheduler.milestones=[1]"],
    "localize": ["init=none", *NETWORK, *TRAINS, *BMN_SMALL, *FEATURES],
    "evaluate": FINISHED,
    "gradcam": [*FINISHED, "stage.run.count=1"],
}


def command(*arguments: str) -> int:
    """Run the command in this process; return its status."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["train", *arguments]
    try:
        train.main()
    except SystemExit as exit:
        return int(exit.code or 0)
    finally:
        HydraConfig.instance().cfg = None
        sys.argv = before
    return 0


Run = Callable[..., int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos and a pretrained network."""
    folder = tmp_path_factory.mktemp("precisions")
    generate(folder / "made", train=2, val=1, untrimmed=8, size=32, workers=1)
    untrimmed = folder / "made/untrimmed"
    (untrimmed / "activity_net.v1-3.min.json").write_text(
        (untrimmed / "annotations.json").read_text()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert command(*PRETRAIN, "data.root=made/videos", "run_dir=base") == 0
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(stage, precision)`` runs a small one, and returns its status."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def started(stage: str, precision: str) -> int:
        data = ["data.root=made/videos"]
        if stage == "localize":
            data = ["data=activitynet", "data.view=localization"]
            data += [f"data.{key}=made/untrimmed" for key in ("root", "annotations")]
        where = f"run_dir={stage}-{precision}"
        arguments = [*STAGES[stage], *data, where, f"trainer.precision={precision}"]
        return command(f"stage={stage}", *arguments)

    return started


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        *((stage, "bf16-mixed") for stage in STAGES),
        ("localize", "16-mixed"),
        ("gradcam", "16-true"),
    ],
)
def test_every_stage_runs_in_less_than_float32(
    run: Run, folder: Path, stage: str, precision: str
) -> None:
    assert run(stage, precision) == 0
    values = json.loads((folder / f"{stage}-{precision}" / "result.json").read_text())
    assert values
    assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.parametrize("stage", ["pretrain", "localize"])
def test_half_precision_weights_are_refused_before_anything_starts(
    run: Run, folder: Path, stage: str, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(stage, precision) == 2
    assert f"trainer.precision={precision} keeps the weights" in capfd.readouterr().err
    assert not (folder / f"{stage}-{precision}" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("bf16", "bf16-mixed"),
        ("16-mixed", "bf16-mixed"),
        *((given, "32-true") for given in (32, "32", "64-true", "16-true", "bf16-true")),
    ],
)
def test_a_finished_network_runs_in_whatever_it_was_trained_in(given: object, taken: str) -> None:
    assert Hardware(accelerator="cpu", precision=given).precision == taken


@pytest.mark.parametrize(
    ("flags", "taken", "why"),
    [
        ("fpu avx512f avx512_bf16 amx_tile amx_bf16 amx_int8", "bf16-mixed", "has AMX"),
        ("fpu avx512f avx512_bf16", "32-true", "has no AMX"),  # bfloat16, but not of matrices
        ("fpu amx_tile amx_int8", "32-true", "has no AMX"),
        (None, "32-true", "has no AMX"),  # not Linux
    ],
)
def test_the_fastest_precision_is_that_of_the_processor(
    flags: str | None, taken: str, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    with caplog.at_level("INFO"):
        assert fastest_precision("cpu", cpuinfo=file) == taken
    assert f"trainer.precision=auto is {taken}: this processor {why}" in caplog.text


def test_what_has_to_be_exact_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(50, 32), dim=1)
    maps, slopes = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    rank, heat = effective_rank(x), grad_cam(maps, slopes)
    network = BMN(num_features=8, positions=10, hidden_1d=8, hidden_2d=4, hidden_3d=8)
    features = torch.randn(2, 8, 10)
    with torch.no_grad():
        exact = network(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(effective_rank(x), rank)
        assert torch.equal(grad_cam(maps, slopes), heat)
        output = network(features)
    for part, whole in zip(output, exact, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, whole, atol=0.02, rtol=0)
    output.maps.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
