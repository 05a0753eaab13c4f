"""``stage=features`` by the command: what it takes from the checkpoint, and every mistake."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.models import TorchvisionResNet, load_backbone

Main = Callable[..., SimpleNamespace]

TINY = ["backbone=tiny", "backbone.width=4", "backbone.stages=1"]
PRETRAIN = [
    *TINY,
    "name=first",
    "image_size=40",
    "batch_size=4",
    "queue_size=16",
    "epochs=1",
    "callbacks.online=null",
]
COMMON = ["trainer=cpu", "trainer.threads=1", "data.num_workers=0", "data.holdout=0.34"]


def command(*arguments: object) -> int:
    """Run the command in this process; returns its status."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["train", *map(str, arguments)]
    try:
        train.main()
    except SystemExit as exit:
        return int(exit.code or 0)
    finally:
        HydraConfig.instance().cfg = None
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def pretrained(
    video_folder: Path, tmp_path_factory: pytest.TempPathFactory, indexed: Callable[[Path], str]
) -> Path:
    """The folder of a pretraining run of ``image_size=40``."""
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", indexed(folder / "cache"))
        assert command(*PRETRAIN, *COMMON, f"data.root={video_folder}") == 0
    return folder / "outputs/pretrain/first"


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    indexed: Callable[[Path], str],
) -> Main:
    """``main(...)`` runs ``stage=features`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))

    def run(*arguments: object) -> SimpleNamespace:
        code = command("stage=features", *COMMON, *arguments)
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


def store_of(run: Path, split: str) -> FeatureStore:
    return FeatureStore.open(json.loads((run / "features.json").read_text())[split]["folder"])


def test_network_and_picture_size_are_the_checkpoint_s(
    main: Main, pretrained: Path, video_folder: Path, tmp_path: Path
) -> None:
    where = f"data.root={video_folder}"
    done = main(f"ckpt={pretrained}/last.ckpt", where)
    assert done.code == 0, done.err
    run = tmp_path / "outputs/features" / f"first-{video_folder.name}"
    assert json.loads((run / "result.json").read_text()) == {
        "train/videos": 12,
        "train/rejected": 0,
        "val/videos": 6,
        "val/rejected": 0,
    }
    store = store_of(run, "val")
    assert store.provenance["network"].startswith("TinyBackbone")
    assert store.provenance["transform"] == {
        "name": "EvalTransform",
        "size": 40,
        "resize": 46,
        "stretch": None,
    }
    assert store.provenance["sampling"] == {"num_frames": 30}

    # Independently: one video, decoded, transformed, encoded and averaged here.
    backbone = load_backbone(pretrained / "last.backbone.safetensors")
    from vclr_lightning.data.readers import PyAVReader
    from vclr_lightning.data.sampling.evaluation_frames import evaluation_indices

    with PyAVReader().open(Path(store.paths[2])) as video:
        pictures = video.read(evaluation_indices(video.num_frames, 30))
    transform = EvalTransform(size=40, resize=46)
    pixels = torch.cat([transform([p], None).movedim(1, 0) for p in pictures]).float() / 255  # type: ignore[arg-type]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        features = backbone((pixels - mean) / std)
    assert torch.allclose(features.mean(dim=0), store.mean[2], atol=1e-5)

    again = main(f"ckpt={pretrained}/last.backbone.safetensors", where)
    assert again.code == 0, again.err
    log = (run / "train.log").read_text()
    for split in ("train", "val"):
        assert f"{split}: reusing the features in {store_of(run, split).folder}" in log

    other = main(f"ckpt={pretrained}/last.ckpt", where, "image_size=32", "name=smaller")
    assert other.code == 0, other.err
    smaller = store_of(tmp_path / "outputs/features/smaller", "val")
    assert smaller.provenance["transform"]["size"] == 32
    assert not (pretrained / "features.json").exists()


def test_other_weights_have_an_entry_of_their_own(
    main: Main, pretrained: Path, video_folder: Path, tmp_path: Path
) -> None:
    given = [f"data.root={video_folder}", "stage.run.splits=[val]", "features.num_frames=4"]
    changed = torch.load(pretrained / "last.ckpt", weights_only=True)
    changed["state_dict"]["query_encoder.stem.weight"] *= 2
    torch.save(changed, tmp_path / "other.ckpt")
    assert main(f"ckpt={pretrained}/last.ckpt", *given, "name=a").code == 0
    assert main(f"ckpt={tmp_path}/other.ckpt", *given, "name=b").code == 0
    one, two = (store_of(tmp_path / "outputs/features" / name, "val") for name in "ab")
    assert one.folder != two.folder
    assert one.provenance["weights"] != two.provenance["weights"]
    assert one.provenance["manifest"] == two.provenance["manifest"]

    explicit = [*given, f"features.folder={tmp_path}/kept", "name=c"]
    assert main(f"ckpt={pretrained}/last.ckpt", *explicit).code == 0
    done = main(f"ckpt={tmp_path}/other.ckpt", *explicit)
    assert done.code == 2
    assert f"{tmp_path}/kept/val holds features of other weights" in done.err


def test_snippets_and_layers_by_name(
    main: Main, pretrained: Path, video_folder: Path, tmp_path: Path
) -> None:
    done = main(
        "features=snippets",
        "features.transform.size=32",
        "features.transform.resize=36",
        "features.layer=stem_norm",
        f"ckpt={pretrained}/last.ckpt",
        f"data.root={video_folder}",
        "stage.run.splits=val",
        "name=snippets",
    )
    assert done.code == 0, done.err
    store = store_of(tmp_path / "outputs/features/snippets", "val")
    assert (store.form, store.num_features) == ("ragged", 4)
    assert store.provenance["sampling"] == {"every": 16}


def test_an_unreadable_video_is_listed_and_counted(
    main: Main, video_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(video_folder, folder)
    manifest = ensure_manifest(folder, show=False).file  # it breaks after it was indexed
    broken = folder / "grow/grow_g01_c00.mp4"
    broken.write_bytes(b"")
    given = ["ckpt=none", *TINY, "image_size=32", "features.num_frames=3", "name=broken"]
    done = main(*given, f"data.manifest={manifest}")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "outputs/features/broken/result.json").read_text())
    assert result["train/rejected"] + result["val/rejected"] == 1
    listed = (tmp_path / "outputs/features/broken/rejected.csv").read_text()
    assert str(broken) in listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["stage=features needs weights", "ckpt=none"]),
        (["ckpt=none"], ["backbone=resnet50"]),
        (["ckpt=nowhere.ckpt"], ["nowhere.ckpt", "check the path"]),
        (["ckpt={run}/config.yaml"], ["config.yaml does not begin as a file of PyTorch"]),
        (["ckpt={run}/last.ckpt", "backbone=resnet18"], ["no weights for", "TinyBackbone(width=4"]),
        (["ckpt={run}/last.ckpt", "backbone=tiny"], ["stem.weight", "(32, 3, 3, 3)", "width=4"]),
        (["ckpt={run}/last.ckpt", "features.layer=stem_nrm"], ["stem_nrm", "stem_norm"]),
        (["ckpt={run}/last.ckpt", "stage.run.splits=[test]"], ["'test'", "train, val"]),
        (["ckpt={run}/last.ckpt", "features.num_frames=0"], ["num_frames=0"]),
        (["ckpt={run}/last.ckpt", "+features.num_frame=3"], ["did you mean num_frames?"]),
        (["ckpt={run}/last.ckpt", "trainer=gpu"], ["accelerator=gpu"]),
        (["ckpt={run}/last.ckpt", "trainer.precision=8"], ["precision=8"]),
        (["ckpt={run}/last.ckpt", "image_size=x"], ["image_size='x'"]),
        (["ckpt=foreign.pth"], ["foreign.pth", "give the prefix of the backbone's names"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence(
    arguments: list[str],
    words: list[str],
    main: Main,
    pretrained: Path,
    video_folder: Path,
    tmp_path: Path,
) -> None:
    torch.save({"odd.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    given = [argument.replace("{run}", str(pretrained)) for argument in arguments]
    done = main(f"data.root={video_folder}", *given)
    assert done.code == 2
    assert "Traceback" not in done.err
    (sentence,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in sentence


def test_ranks_of_somebody_else_are_refused(
    main: Main, monkeypatch: pytest.MonkeyPatch, video_folder: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = main("ckpt=none", *TINY, f"data.root={video_folder}")
    assert done.code == 2
    assert "WORLD_SIZE=2 of a launcher that did not start this command" in done.err


def test_a_network_of_torchvision_s_is_recognised(
    main: Main, video_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(TorchvisionResNet(name="resnet18").state_dict(), tmp_path / "resnet18.pth")
    given = ["ckpt=resnet18.pth", f"data.root={video_folder}", "features.num_frames=1"]
    done = main(*given, "stage.run.splits=val")
    assert done.code == 0, done.err
    store = store_of(tmp_path / "outputs/features" / f"resnet18-{video_folder.name}", "val")
    assert store.num_features == 512
    assert store.provenance["transform"]["size"] == 224
