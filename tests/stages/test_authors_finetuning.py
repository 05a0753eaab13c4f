"""CoCLR's and DPC's finetuning, from small real videos to scores of their windows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from torch.optim import SGD

from vclr_lightning import train
from vclr_lightning.callbacks.video_scores import VideoViews, score_videos
from vclr_lightning.data.sampling import SlidingWindows
from vclr_lightning.data.transforms import EvalTransform, ViewsTransform
from vclr_lightning.models import TinyBackbone
from vclr_lightning.modules import FinetuneModule
from vclr_lightning.stages.predict.prediction import recorded_views
from vclr_lightning.stages.shared.data import video_data
from vclr_lightning.stages.shared.finetuned import load_finetuned

Main = Callable[..., SimpleNamespace]

COMMON = [
    *("stage=finetune", "backbone=tiny", "backbone.width=8", "backbone.stages=2", "image_size=32"),
    *("batch_size=4", "epochs=2", "frames_per_clip=1", "trainer=cpu", "trainer.threads=1"),
    *("trainer.log_every_n_steps=1", "data.num_workers=0", "data.holdout=0.34"),
    *("test.transform.crop=40", "transform.steps.crop.size=40"),
]


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    video_folder: Path,
    tmp_path: Path,
) -> Main:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> SimpleNamespace:
        GlobalHydra.instance().clear()
        where = (f"data.root={video_folder}", f"data.cache_dir={tmp_path}/cache")
        monkeypatch.setattr(sys, "argv", ["train", *COMMON, *where, *map(str, arguments)])
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.mark.parametrize("averaging", ["probabilities", "logits"])
def test_scores_are_averaged_over_windows_and_crops(
    video_folder: Path, tmp_path: Path, averaging: str
) -> None:
    torch.manual_seed(0)
    module = FinetuneModule(
        backbone=TinyBackbone(width=8, stages=2),
        num_classes=3,
        optimizer=partial(SGD, lr=0.1),
        init_std=1,
        averaging=averaging,  # type: ignore[arg-type]
    )
    data = video_data(
        root=video_folder,
        cache_dir=tmp_path,
        holdout=0.34,
        samplers=None,
        transform=EvalTransform(size=24, resize=24),
        eval_transform=EvalTransform(size=24, resize=24),
        batch_size=4,
        num_workers=0,
    )
    views = VideoViews(
        windows=SlidingWindows(num_segments=4, frames_per_clip=1, stride=2, every=3),
        transform=ViewsTransform(size=24, crop=40, crops="ten", interpolation="nearest"),
    )
    scored = score_videos(module, data, data.val, views=views, show=False)
    assert len(scored.scores) == 6
    module.eval()
    for row, found in zip(scored.index.tolist(), scored.scores, strict=True):
        with av.open(str(data.val.path(row))) as container:
            decoded = [one.to_ndarray(format="rgb24") for one in container.decode(video=0)]
        frames = [Image.fromarray(one) for one in decoded]
        rows = []
        for start in range(0, len(frames) - 6, 6):
            for left, top in ((0, 0), (24, 0), (0, 8), (24, 8), (12, 4)):
                cuts = [f.crop((left, top, left + 40, top + 40)) for f in frames[start::2][:4]]
                clip = np.stack([np.asarray(cut.resize((24, 24), Image.NEAREST)) for cut in cuts])
                tensor = torch.from_numpy(clip).permute(0, 3, 1, 2)[None, :, :, None]
                for mirrored in (tensor, tensor.flip(-1)):
                    with torch.no_grad():
                        logits = module(mirrored)[0]
                    odds = logits.exp() / logits.exp().sum()
                    rows.append(odds if averaging == "probabilities" else logits)
        torch.testing.assert_close(found, sum(rows) / len(rows), rtol=1e-4, atol=1e-5)


def test_dpc_s_drops_short_videos_and_starts_from_its_gru(
    main: Main, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["recipe=finetune/dpc", "num_segments=4", "frame_stride=3", "optim.base_lr=0.01"]
    words += ["test.windows.every=2", "stage.run.sampler.min_frames=30", "name=first"]
    done = main(*words)
    assert done.code == 0, done.err
    run = tmp_path / "outputs/finetune/first"
    content = json.loads((run / "finetune.json").read_text())
    assert content["settings"] == (
        "GRU, windows of 4 x 1 frames in steps of 3, one every 2 steps x centre 32"
    )
    result = json.loads((run / "result.json").read_text())
    assert 0 < result["test/left_out"] < 6
    assert result["test/videos"] == 6 - result["test/left_out"]
    assert result["train/videos"] < 12
    page = (run / "report.html").read_text()
    assert f"{result['test/left_out']:.0f} of 6 test videos have fewer than 30 frames" in page
    # As a start of another run, its GRU goes on; loaded, it is the same classifier.
    classifier = load_finetuned(run / "last.ckpt")
    saved = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert {"context.gru.update.weight", "norm.running_mean"} <= saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in classifier.state_dict().items())
    kept = main(
        *("recipe=finetune/dpc", "num_segments=4", "frame_stride=3", "epochs=1", "name=second"),
        *("stage.run.sampler.min_frames=1", f"init={run / 'last.ckpt'}"),
    )
    assert kept.code == 0, kept.err
    assert "context (6)" in kept.err
    result = json.loads((tmp_path / "outputs/finetune/second/result.json").read_text())
    assert (result["test/videos"], result["test/left_out"]) == (6, 0)


def test_coclr_s_is_tested_on_windows_in_ten_crops(main: Main, tmp_path: Path) -> None:
    done = main("recipe=finetune/coclr", "test.windows.every=9")
    assert done.code == 0, done.err
    run = tmp_path / "outputs/finetune/coclr"
    content = json.loads((run / "finetune.json").read_text())
    assert content["settings"] == "TSN, windows of 1 frames, one every 9 steps x ten-crop 32"
    assert (content["train"]["videos"], content["test"]["videos"]) == (12, 6)
    assert content["facts"]["dropout"] == "0.9"
    state = torch.load(run / "last.ckpt", weights_only=True)
    rates = {group["name"]: group["lr"] for group in state["optimizer_states"][0]["param_groups"]}
    assert rates == {"network": pytest.approx(1e-4), "default": pytest.approx(1e-3)}
    assert load_finetuned(run / "last.ckpt").averaging == "probabilities"
    config = state["metadata"]["config"]
    views = recorded_views(config, {})
    assert views.windows is not None
    assert (views.windows.every, views.transform.crop, views.transform.crops) == (9, 40, "ten")
