"""``vclr predict``: compose the configuration of an evaluation, and apply it to video files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from vclr_lightning.app.backbones import remembering_network, vouching
from vclr_lightning.app.benchmarking import composed
from vclr_lightning.app.configuration import resolved, with_checkpoint_values
from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    from vclr_lightning.stages.predict.prediction import Predictions

_MMACTION = {"num_segments": 8, "image_size": 224}  # as most of its classifiers are tested
_LOADING = ("eval_batch_size", "start_method", "prefetch_factor", "timeout")


def predictions_of(
    overrides: Sequence[str],
    videos: Sequence[Path],
    *,
    config_dir: Path | None = None,
    encode: bool = False,
    neighbours: Path | None = None,
    count: int = 5,
    top: int = 5,
) -> Predictions:
    """Predict as ``stage=features`` and, for a finetuned checkpoint, ``stage=finetune`` evaluate.

    Args:
        overrides: of ``stage=features``, ``ckpt`` among them; and of ``test``, the frames and crops
            of a classifier, which are otherwise those of its run.
        videos: files.
        config_dir: folder of more options.
        encode, neighbours, count, top: see
            :func:`~vclr_lightning.stages.predict.prediction.predict`.

    Raises:
        UserError: the configuration is wrong, or whatever the prediction finds wrong.
    """
    from hydra.utils import instantiate

    from vclr_lightning.models.run_record import run_config
    from vclr_lightning.stages.predict.prediction import predict, recorded_views
    from vclr_lightning.stages.shared.arguments import check_arguments
    from vclr_lightning.stages.shared.finetuned import is_finetuned

    tested = [word for word in overrides if word.lstrip("+").startswith("test.")]
    words = [word for word in overrides if word not in tested]
    cfg = composed(["stage=features", *words], config_dir)
    chosen = any(word.partition(".")[0].partition("=")[0] == "backbone" for word in words)
    with vouching(cfg, [] if config_dir is None else [config_dir]):
        cfg = with_checkpoint_values(cfg, chosen=chosen)
        config = resolved(cfg)
        check_arguments(config)
        ckpt = config["ckpt"]
        finetuned = str(ckpt).lower() != "none" and is_finetuned(ckpt)
        if not (finetuned or encode or neighbours is not None):
            raise UserError(
                f"{ckpt} has no classifier; give --features FILE for features, or --neighbours "
                "PATH for the nearest videos"
            )
        changes: Any = OmegaConf.to_container(
            OmegaConf.from_dotlist([word.lstrip("+") for word in tested])
        )
        node = OmegaConf.to_container(remembering_network(cfg).features, resolve=True)
        assert isinstance(node, dict)
        for key in ("data", "folder"):  # of the videos; beside the videos' own
            node.pop(key)
        features = instantiate({**node, "_partial_": True, "_convert_": "all"})
        data: Mapping[str, Any] = config["data"]
        loading = {key: data[key] for key in _LOADING if key in data}
        given = data.get("num_workers")
        few = len(videos) <= 2 and neighbours is None  # processes would take longer to start
        return predict(
            ckpt=ckpt,
            videos=videos,
            features=features,
            classify=finetuned,
            views=recorded_views(run_config(Path(ckpt)) or _MMACTION, changes.get("test", {}))
            if finetuned
            else None,
            encode=encode,
            neighbours=neighbours,
            count=count,
            top=top,
            backbone=features.keywords["backbone"],
            device=features.keywords["hardware"].each[0],
            cache_dir=data.get("cache_dir"),
            num_workers=0 if given is None and few else given,
            **loading,
        )
