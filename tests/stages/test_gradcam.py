"""``stage=gradcam`` by the command: every target, its files, and every mistake."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from torch import nn

from vclr_lightning import train
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.functional.grad_cam import grad_cam
from vclr_lightning.functional.pixels import normalize
from vclr_lightning.models import TinyBackbone, WrappedBackbone, export_backbone
from vclr_lightning.objectives.heads import projection_head
from vclr_lightning.stages.gradcam.heat_maps import explain_score
from vclr_lightning.stages.gradcam.stage import gradcam
from vclr_lightning.stages.gradcam.targets import build_target
from vclr_lightning.stages.gradcam.videos import choose_videos

TINY = [
    *("backbone=tiny", "backbone.width=8", "backbone.stages=2", "image_size=32", "epochs=1"),
    *(
        "batch_size=6",
        "trainer=cpu",
        "trainer.threads=1",
        "data.num_workers=0",
        "data.holdout=0.34",
    ),
]
GRADCAM = ["stage=gradcam", "trainer=cpu", "trainer.threads=1", "stage.run.passes=2", "name=run"]

Main = Callable[..., SimpleNamespace]


def run(folder: Path, *arguments: object) -> int:
    """Run a command in a folder."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train", *map(str, arguments)])
        try:
            train.main()
        except SystemExit as exit:
            return int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
    return 0


@pytest.fixture(scope="module")
def trained(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Checkpoints of all kinds."""
    folder = tmp_path_factory.mktemp("trained")
    where = (f"data.root={video_folder}", f"data.cache_dir={folder}/cache")
    order = ("objective=order", "monitor=null", "callbacks.online=null", "name=order")
    assert run(folder, *TINY, *where, *order) == 0
    for head in ("tsn", "tsm"):
        frozen = head == "tsn"
        options = (f"module.head={head}", f"module.frozen={frozen}", "num_segments=4", "test=null")
        assert run(folder, "stage=finetune", *TINY, *where, *options, f"name={head}") == 0
    torch.manual_seed(3)
    return SimpleNamespace(
        order=folder / "outputs/pretrain/order/last.ckpt",
        tsn=folder / "outputs/finetune/tsn/last.ckpt",
        tsm=folder / "outputs/finetune/tsm/last.ckpt",
        plain=export_backbone(TinyBackbone(width=8, stages=3), folder / "plain.safetensors"),
        cache=folder / "cache",
    )


@pytest.fixture
def main(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """``main(...)`` runs the stage in an empty folder."""

    def command(*arguments: object) -> SimpleNamespace:
        capfd.readouterr()
        code = run(tmp_path, *GRADCAM, *arguments)
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return command


def content(folder: Path) -> dict:
    return json.loads((folder / "outputs/gradcam/run/gradcam.json").read_text())


def frames_of(film: Path) -> list[np.ndarray]:
    with av.open(str(film)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_classes_of_two_finetuned_networks_side_by_side(
    main: Main, trained: SimpleNamespace, video_folder: Path, tmp_path: Path
) -> None:
    where = (f"data.root={video_folder}", f"data.cache_dir={trained.cache}", "data.holdout=0.34")
    done = main(
        *(f"ckpt={trained.tsn}", f"others={{shifted: {trained.tsm}}}", *where),
        *("explain=label", "stage.run.count=2", "stage.run.split=val", "stage.run.size=40"),
    )
    assert done.code == 0, done.err
    run_folder = tmp_path / "outputs/gradcam/run"
    found = content(tmp_path)
    assert (found["target"], found["num_frames"], found["passes"]) == ("class", 4, 2)
    assert [n["name"] for n in found["networks"]] == ["tsn/last", "shifted"]
    assert [n["layer"] for n in found["networks"]] == ["blocks", "blocks"]
    page = (run_folder / "report.html").read_text()
    assert "https://" not in page
    for video in found["videos"]:
        kind = Path(video["path"]).parent.name
        assert [view["explained"] for view in video["views"]] == [kind, kind]
        assert all(0 < view["share"] < 1 for view in video["views"])
        with Image.open(run_folder / video["strip"]) as strip:
            width, height = strip.size
        assert height == 20 + 3 * 43  # frames, and a row for each network
        assert width > 4 * 40
        frames = frames_of(run_folder / video["film"])
        assert len(frames) == 4 * 2
        assert frames[0].shape == (60, 3 * 43 - 3 + 0, 3)
        # Heat is there, and the plain frames beside it are not touched by it.
        assert any((np.ptp(frame[20:, 43:83].astype(int), axis=2) > 60).any() for frame in frames)
        assert f'href="{video["film"]}"' in page
    assert page.count("data:image/png;base64,") == 2
    assert json.loads((run_folder / "result.json").read_text()) == {"videos": 2, "rejected": 0}
    # The predicted class is the one of the highest score, and a named one is that one.
    main(f"ckpt={trained.tsn}", *where, "stage.run.count=1")
    (predicted,) = content(tmp_path)["videos"][0]["views"]
    scores = {}
    for name in ("grow", "left", "right"):
        main(f"ckpt={trained.tsn}", *where, "stage.run.count=1", f"explain={name}")
        (view,) = content(tmp_path)["videos"][0]["views"]
        assert view["explained"] == name
        scores[name] = view["score"]
    assert predicted["explained"] == max(scores, key=lambda name: scores[name])
    main(f"ckpt={trained.tsn}", *where, "stage.run.count=1", "explain=2")
    assert content(tmp_path)["videos"][0]["views"][0]["explained"] == "right"


def test_similarity_of_files_without_a_data_set_beside_an_untrained_network(
    main: Main, trained: SimpleNamespace, video_folder: Path, tmp_path: Path
) -> None:
    files = sorted(video_folder.rglob("*.mp4"))[:2]
    bad = tmp_path / "bad, one.mp4"
    bad.write_bytes(b"no video")
    listed = ",".join(f"'{file}'" for file in (*files, bad))
    done = main(
        *(f"ckpt={trained.order}", "others=[none]", f"videos=[{listed}]", "stage.run.size=40"),
        *("stage.run.num_frames=2", "layer=blocks.0"),
    )
    assert done.code == 0, done.err
    found = content(tmp_path)
    assert found["target"] == "similarity"
    assert [n["name"] for n in found["networks"]] == ["order/last", "untrained"]
    assert [video["path"] for video in found["videos"]] == [str(file) for file in files]
    for video in found["videos"]:
        one, other = (view["share"] for view in video["views"])
        assert -1 <= one <= 1
        assert one != other
    (note,) = found["notes"]
    assert note == "1 video cannot be read and left out; see rejected.csv."
    with (tmp_path / "outputs/gradcam/run/rejected.csv").open(newline="") as file:
        assert [line["path"] for line in csv.DictReader(file)] == [str(bad)]
    assert note in (tmp_path / "outputs/gradcam/run/report.html").read_text()


def test_order_prediction(
    main: Main, trained: SimpleNamespace, video_folder: Path, tmp_path: Path
) -> None:
    file = min(video_folder.rglob("*.mp4"))
    shares = {}
    for name in ("neither", "anchor", "positive", "both"):
        done = main(
            *(f"ckpt={trained.order}", f"videos=[{file}]", "target=order", f"explain={name}"),
            "stage.run.shuffled=anchor",
        )
        assert done.code == 0, done.err
        (view,) = content(tmp_path)["videos"][0]["views"]
        shares[name] = view["share"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    done = main(f"ckpt={trained.order}", f"videos=[{file}]", "target=order", "explain=label")
    assert done.code == 0, done.err
    assert content(tmp_path)["videos"][0]["views"][0]["explained"] == "neither"


CLIPS = torch.randint(0, 256, (2, 3, 3, 1, 32, 32), dtype=torch.uint8)


def test_heat_of_the_similarity_sums_up_to_it(trained: SimpleNamespace) -> None:
    target = build_target("similarity", trained.order, of=trained.order)
    layer = find_layer(target.network, "blocks")
    order = torch.arange(3).expand(2, 3)
    heat = explain_score(target, layer, "blocks", clips=CLIPS, order=order, outcome=0)
    with torch.no_grad():
        features = target.network(normalize(CLIPS.flatten(0, 1))[:, :, 0]).view(2, 3, -1).mean(1)
        cosine = torch.cosine_similarity(features[:1], features[1:])
        assert float(target.scores(CLIPS, order)) == pytest.approx(float(cosine), abs=1e-5)
    # Features after a ReLU are positive, so nothing is cut off. (Means of gradients over the
    # positions are 1/positions of what each position adds.)
    for of_tuple in heat.sum(dim=(1, 2, 3)):
        assert float(of_tuple) == pytest.approx(float(cosine), abs=1e-4)


def test_heat_of_a_class_is_the_class_map(trained: SimpleNamespace) -> None:
    target = build_target("class", trained.tsn, of=trained.tsn)
    layer = find_layer(target.network, "blocks")
    order = torch.arange(3)[None]
    heat = explain_score(target, layer, "blocks", clips=CLIPS[:1], order=order, outcome=1)
    weights = torch.load(trained.tsn, weights_only=True)["state_dict"]["classifier.weight"]
    with torch.no_grad():
        maps = target.network.forward_map(normalize(CLIPS[0])[:, :, 0])
    positions = maps[0, 0].numel()
    expected = torch.einsum("c,schw->shw", weights[1], maps).relu() / (3 * positions)
    torch.testing.assert_close(heat[0], expected)


def test_heat_of_the_order_is_that_of_its_logit(trained: SimpleNamespace) -> None:
    target = build_target("order", trained.order, of=trained.order)
    saved = torch.load(trained.order, weights_only=True)["state_dict"]
    order = torch.tensor([[2, 0, 1], [0, 1, 2]])
    layer = find_layer(target.network, "blocks")
    heat = explain_score(target, layer, "blocks", clips=CLIPS, order=order, outcome=1)
    pictures = normalize(CLIPS.flatten(0, 1))[:, :, 0]
    maps = target.network.forward_map(pictures).detach().requires_grad_()
    at = "objectives.order."
    hidden = maps.mean(dim=(2, 3)) @ saved[f"{at}query_head.0.weight"].T
    hidden = (hidden + saved[f"{at}query_head.0.bias"]).relu()
    embedded = hidden @ saved[f"{at}query_head.2.weight"].T + saved[f"{at}query_head.2.bias"]
    embedded = (embedded / embedded.norm(dim=1, keepdim=True)).view(2, 3, -1)
    joined = torch.cat([embedded[0, [2, 0, 1]], embedded[1]]).flatten()
    logits = saved[f"{at}classifier.weight"] @ joined + saved[f"{at}classifier.bias"]
    torch.testing.assert_close(target.scores(CLIPS, order), logits)
    (gradients,) = torch.autograd.grad(logits[1], maps)
    torch.testing.assert_close(heat.flatten(0, 1), grad_cam(maps, gradients).detach())


def test_from_python(trained: SimpleNamespace, video_folder: Path, tmp_path: Path) -> None:
    file = min(video_folder.rglob("*.mp4"))
    values = gradcam(ckpt=trained.plain, videos=[file], directory=tmp_path, passes=2, show=False)
    assert values == {"videos": 1, "rejected": 0}
    assert (tmp_path / f"00-{file.stem}.png").exists()
    (chosen,) = choose_videos(str(file))
    assert (chosen.path, chosen.label) == (file, -1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["ckpt={order}", "layer=blocks.0.conv", "videos=[{file}]"],
            r"order/last\.ckpt: TinyBackbone has no layer 'blocks.0.conv'; near it are blocks.0.c",
        ),
        (
            ["ckpt={tsn}", "others=[{plain}]", "layer=blocks.3", "videos=[{file}]"],
            r"tsn/last\.ckpt: TinyBackbone has no layer 'blocks.3'",
        ),
        (
            ["ckpt={plain}", "layer=blocks.2", "others=[{tsn}]", "videos=[{file}]"],
            r"tsn/last\.ckpt: TinyBackbone has no layer 'blocks.2'; near it are blocks",
        ),
        (
            ["ckpt={order}", "target=class", "videos=[{file}]"],
            "has no finetuned classifier, which target=class needs; it can give similarity and or",
        ),
        (
            ["ckpt={tsm}", "target=order", "videos=[{file}]"],
            "has no order head, which target=order needs; it can give class and similarity: take",
        ),
        (
            ["ckpt={tsn}", "target=class", "others=[none]", "videos=[{file}]"],
            "an untrained network has no finetuned classifier",
        ),
        (["ckpt={tsn}", "target=clas"], "there is no target=clas; there are class, similarity"),
        (["ckpt={tsn}", "videos=[nowhere.mp4]"], r"there is no video file nowhere\.mp4; check"),
        (
            ["ckpt={tsn}", "videos=[grow_g00_c99]", "data.root={root}"],
            r"no video grow_g00_c99: .* the data set's 18 videos has this path or name; near",
        ),
        (["ckpt={tsn}"], r"no videos are named; give videos=\[FILE"),
        (["ckpt={tsn}", "videos=[{file}]", "explain=up"], r"no class up; it has grow, left, right"),
        (["ckpt={tsn}", "videos=[{file}]", "explain=lef"], "no class lef; near it are left"),
        (
            ["ckpt={tsn}", "videos=[{file}]", "explain=label"],
            "files have no labels; give the data set",
        ),
        (["ckpt={plain}", "videos=[{file}]", "explain=left"], "target=similarity has one score"),
        (["ckpt={tsn}", "videos=[{file}]", "stage.run.shuffled=both"], "shuffled=both is for tar"),
        (
            ["ckpt={order}", "videos=[{file}]", "target=order", "stage.run.num_frames=5"],
            "reads tuples of 3 frames, not num_frames=5",
        ),
        (["ckpt={tsn}", "videos=[{file}]", "stage.run.passes=1"], "passes=1 of Grad-CAM must be 2"),
        (["ckpt={tsn}", "videos=[{bad}]"], "none of the 1 videos can be read; the first"),
        (["ckpt={tsn}", "videos=[{cut}]"], "truncated: the header promises 50 frames"),
        (["ckpt={tsn}", "others={{tsn/last: {tsm}}}", "videos=[{file}]"], "two networks of one na"),
    ],
)
def test_mistakes(
    main: Main,
    trained: SimpleNamespace,
    video_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    known = {
        "cut": _cut(tmp_path / "cut.avi"),
        "file": min(video_folder.rglob("*.mp4")),
        "root": f"{video_folder} data.cache_dir={trained.cache}",
        "bad": bad,
        **vars(trained),
    }
    words = [word for one in arguments for word in one.format(**known).split(" data.")]
    words = [f"data.{w}" if w.startswith("cache_dir") else w for w in words]
    done = main(*words)
    assert done.code == 2, done.out
    error = done.err[done.err.rindex("error:") :]
    assert len(error.strip().splitlines()) == 1
    assert re.search(says, error), error


def _cut(path: Path) -> Path:
    """Half of a video of 50 frames."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pictures = np.random.default_rng(0).integers(256, size=(50, 48, 64, 3), dtype=np.uint8)
        for picture in pictures:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        sink.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_classifier_that_does_not_know_the_class_says_so(
    main: Main, trained: SimpleNamespace, video_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "videos/jump").mkdir(parents=True)
    (tmp_path / "videos/jump/one.mp4").write_bytes(min(video_folder.rglob("*.mp4")).read_bytes())
    where = (f"data.root={tmp_path}/videos", f"data.cache_dir={tmp_path}/cache", "data.holdout=0")
    done = main(f"ckpt={trained.tsn}", *where, "videos=[one]", "explain=label")
    assert done.code == 2
    assert "does not predict class jump" in done.err
    done = main(f"ckpt={trained.tsn}", *where, "videos=[jump/one.mp4]")
    assert done.code == 0, done.err
    assert len(content(tmp_path)["videos"]) == 1


def test_clips_show_the_heat_of_their_middle_frame(video_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 8, 3, stride=2, padding=1), nn.ReLU())
    values = gradcam(
        ckpt="none",
        backbone=WrappedBackbone(net, num_features=8, clip_dims=3),
        videos=[min(video_folder.rglob("*.mp4"))],
        directory=tmp_path,
        frames_per_clip=4,
        transform=EvalTransform(size=32, resize=36),
        num_frames=2,
        passes=2,
        size=40,
        show=False,
    )
    assert values["videos"] == 1
    (film,) = tmp_path.glob("*.mp4")
    assert len(frames_of(film)) == 4


def test_released_order_head(tmp_path: Path) -> None:
    head = projection_head(32, 16)
    state = {f"fc_order.{name}": tensor for name, tensor in head.state_dict().items()}
    linear = nn.Linear(2 * 3 * 16, 4)
    state |= {f"fc_order_classifier.{name}": t for name, t in linear.state_dict().items()}
    state |= {f"fc_inter.{name}": tensor for name, tensor in head.state_dict().items()}
    backbone = TinyBackbone(width=8, stages=2)
    torch.save({"model": {**backbone.state_dict(), **state}}, tmp_path / "released.pth")
    target = build_target("order", tmp_path / "released.pth", backbone, of="none")
    assert target.segments == 3
    order = torch.arange(3).expand(2, 3)
    pictures = normalize(CLIPS.flatten(0, 1))[:, :, 0]
    with torch.no_grad():
        embedded = head(backbone.eval()(pictures)).view(2, 3, 16)
        embedded = embedded / embedded.norm(dim=1, keepdim=True)  # each channel over the frames
        expected = linear(torch.cat([embedded[0], embedded[1]]).flatten())
    torch.testing.assert_close(target.scores(CLIPS, order).detach(), expected)
