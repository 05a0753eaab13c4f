"""Say what a checkpoint makes of new videos: classes, nearest neighbours, features.

A finetuned checkpoint gives classes with probabilities, from the frames and crops of its run's
test. Any weights give features, and with them the nearest videos in a folder of features
(stage=features), a manifest, or a folder of videos. Further words are settings of stage=features,
such as image_size=112, or of the classifier's test, such as test.transform.crops=ten.

  vclr predict ckpt=outputs/finetune/ucf101/last.ckpt clip.mp4 /folder/of/videos
  vclr predict ckpt=outputs/pretrain/k400/last.ckpt clip.mp4 --features clip.npy
  vclr predict ckpt=resnet50.pth clip.mp4 --neighbours ucf101.arrow --out outputs/predict
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from vclr_lightning.core.errors import UserError

_SETTING = re.compile(r"[~+]{0,2}[\w.@/]+=.*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr predict``."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="ckpt=CKPT VIDEO",
        help="weights, videos or folders of them, and settings as KEY=VALUE",
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="write features: .npy or .safetensors"
    )
    parser.add_argument(
        "--neighbours",
        type=Path,
        metavar="PATH",
        help="look up the nearest videos in features, a manifest, or a folder of videos",
    )
    parser.add_argument("-k", type=int, default=5, help="neighbours of each (default: 5)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes (default: 5)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write tables, JSON and a page with pictures"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own options, as in training"
    )


def run(args: argparse.Namespace) -> None:
    """Predict, print and write; in the end, name the videos that cannot be read."""
    overrides, paths = _sorted(args.words)
    for option in ("features", "neighbours"):
        _check(option, getattr(args, option))

    from vclr_lightning.app.predicting import predictions_of
    from vclr_lightning.core.screen import wrote
    from vclr_lightning.results import present
    from vclr_lightning.results.terminal import show_result
    from vclr_lightning.stages.predict.prediction_page import (
        as_json,
        prediction_result,
        write_features,
    )

    videos = _videos(paths)
    if os.getcwd() not in sys.path:  # where `python -m` finds the classes of a project
        sys.path.insert(0, os.getcwd())
    found = predictions_of(
        overrides,
        videos,
        config_dir=args.config_dir,
        encode=args.features is not None,
        neighbours=args.neighbours,
        count=args.k,
        top=args.top,
    )
    ckpt = next(word for word in overrides if word.startswith("ckpt=")).partition("=")[2]
    if args.features is not None:
        write_features(found, args.features)
    if args.json:
        print(json.dumps(as_json(found, ckpt=ckpt), indent=1))
    result = prediction_result(found, ckpt=ckpt, pictures=args.out is not None)
    if args.out is not None and args.json:
        from vclr_lightning.results import save

        save(result, args.out)
    elif args.out is not None:
        present(result, args.out)
    elif not args.json:
        show_result(result)
    if args.features is not None and not args.json:
        wrote(args.features)
    if bad := found.rejected:
        first = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise UserError(f"{len(bad)} of {len(videos)} videos cannot be read: {first}{more}")


def _sorted(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Separate settings from paths; without ``ckpt=`` the first path is the checkpoint."""
    settings = [w for w in words if _SETTING.fullmatch(w) and not Path(w).exists()]
    paths = [w for w in words if w not in settings]
    if not any(word.startswith("ckpt=") for word in settings):
        if not paths or len(paths) == 1:
            raise UserError("give weights and videos: vclr predict ckpt=CKPT VIDEO...")
        settings.append(f"ckpt={paths.pop(0)}")
    if not paths:
        raise UserError("no videos are named; give files or folders after ckpt=CKPT")
    return settings, [Path(path).expanduser() for path in paths]


def _check(option: str, path: Path | None) -> None:
    """Refuse a mistake before anything is loaded."""
    if path is None:
        return
    if option == "neighbours" and not path.exists():
        raise UserError(
            f"--neighbours {path}: there is no such file or folder; give features of "
            "stage=features, a manifest, or a folder of videos"
        )
    if option == "features" and path.suffix not in (".npy", ".safetensors"):
        raise UserError(f"--features {path} must end in .npy or .safetensors")


def _videos(paths: Sequence[Path]) -> list[Path]:
    """Return the videos in folders, and the other paths as they are."""
    from vclr_lightning.data.indexing.video_files import find_videos

    found: list[Path] = []
    for path in paths:
        inside = [path / name for name in find_videos(path).paths] if path.is_dir() else [path]
        if not inside:
            raise UserError(f"there are no videos in {path}")
        found += inside
    return list(dict.fromkeys(found))
