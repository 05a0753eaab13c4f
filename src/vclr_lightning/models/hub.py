"""Backbones on the Hugging Face hub: weights that describe their network, with a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.models.export import export_backbone, load_backbone, rebuilt
from vclr_lightning.models.hub_file import WEIGHTS, hub_errors, hub_file
from vclr_lightning.models.model_card import card_facts, card_metadata, model_card
from vclr_lightning.models.trusted_networks import trusted_spec


def push_to_hub(
    source: nn.Module | str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str = "Upload a backbone",
    results: Sequence[str | Path] = (),
    prefix: str | None = None,
) -> str:
    """Upload a backbone and its model card, and return the address of the commit.

    The repository is made where there is none. It holds ``model.safetensors`` and ``README.md``.

    Args:
        source: a pretraining module, a backbone, or a checkpoint file of any recognised layout.
        repository: ``USER/REPOSITORY``.
        private: make a private one.
        revision: branch to commit to.
        token: of the user; by default the one that ``hf auth login`` has stored.
        message: of the commit.
        results: ``result.json`` of evaluations, for the card.
        prefix: prefix of the backbone's names in a file of another layout.

    Raises:
        UserError: the source cannot be read, the extra is not installed, or the hub refuses.

    Example:
        ::

            push_to_hub("outputs/pretrain/k400/best.ckpt", "me/vclr-resnet50-k400")
            backbone = from_pretrained("me/vclr-resnet50-k400")
    """
    with TemporaryDirectory(prefix="vclr-hub-") as folder:
        file = Path(folder) / WEIGHTS
        paths = [Path(path) for path in results]
        if isinstance(source, nn.Module):
            export_backbone(source, file)
            facts = card_facts(read_checkpoint(file), results=paths)
        else:
            facts = card_facts(read_checkpoint(source, prefix=prefix), results=paths)
            export_backbone(source, file, prefix=prefix, metadata=card_metadata(facts))
        exported = read_checkpoint(file)
        known = bool(exported.spec) and trusted_spec(exported.spec) is not None
        card = model_card(
            f"{repository.rpartition('/')[2]}.safetensors",
            network=rebuilt(exported) if known else None,
            facts=facts,
            load=f'backbone = load_backbone("hf://{repository}")',
        )
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        with hub_errors(f"{repository} cannot be uploaded") as hub:
            api = hub.HfApi(token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, revision=revision, commit_message=message
            )
    return str(commit.commit_url)


def from_pretrained(
    name: str | Path,
    backbone: nn.Module | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    train: bool = False,
) -> nn.Module:
    """Return a backbone that :func:`push_to_hub` has uploaded.

    Args:
        name: ``USER/REPOSITORY``, or a folder with a copy of it, which needs no network.
        backbone: see :func:`~vclr_lightning.models.load_backbone`.
        revision: branch, tag or commit.
        token: of the user; by default the one that ``hf auth login`` has stored.
        cache_dir: of the library.
        local_files_only: take what is in the cache, and use no network.
        train: return it in training mode.

    Raises:
        UserError: the extra is not installed, there is no such repository, or its weights do not
            fit.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.models import TinyBackbone
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = export_backbone(TinyBackbone(width=8), folder / "model.safetensors")
        >>> from_pretrained(folder).num_features
        64
    """
    file = hub_file(
        str(name),
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    return load_backbone(file, backbone, train=train)
