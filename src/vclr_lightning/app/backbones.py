"""The user's own networks: which ones files may name, and how a run records them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vclr_lightning.core.errors import UserError

_PROVIDERS = ("command-line", "hydra.searchpath in command-line")


def project_folders() -> list[Path]:
    """Return the folders of options that the command adds (``--config-dir``)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    own = [s for s in HydraConfig.get().runtime.config_sources if s.provider in _PROVIDERS]
    packages = [Path(str(resources.files(s.path))) for s in own if s.schema == "pkg"]
    return [Path(s.path) for s in own if s.schema == "file"] + packages


def vouching(cfg: DictConfig, folders: Sequence[Path]) -> AbstractContextManager[None]:
    """Let weights files name this run's network, and those of its project's ``backbone/*.yaml``.

    The user wrote these files and gives their folder in the command. A class that only a weights
    file names is never imported.

    Raises:
        UserError: a file cannot be read.
    """
    from vclr_lightning.models.trusted_networks import vouched

    nodes = [OmegaConf.create() if cfg.get("backbone") is None else cfg.backbone]
    for file in (file for folder in folders for file in sorted(folder.glob("backbone/*.yaml"))):
        try:
            nodes.append(OmegaConf.load(file))
        except Exception as error:  # of YAML, of the disk, of OmegaConf
            raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    return vouched([OmegaConf.to_container(node) for node in nodes])


def remembering_network(cfg: DictConfig) -> DictConfig:
    """Return the configuration with a network that remembers its node, unless it is this package's.

    Checkpoints and exports record it, whatever the network's class.
    """
    from vclr_lightning.stages.shared.network import network_from_node

    node = cfg.get("backbone")
    own = node is None or str(node.get("_target_")).startswith("vclr_lightning.")
    if node is None or (own and "net" not in node):
        return cfg
    cfg = cfg.copy()
    target = f"{network_from_node.__module__}.{network_from_node.__qualname__}"
    cfg.backbone = {
        "_target_": target,
        "node": json.dumps(OmegaConf.to_container(node, resolve=True)),
    }
    return cfg
