"""Files of the Hugging Face hub; an optional dependency, asked only for what the user names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError

WEIGHTS = "model.safetensors"
HUB = "hf://"
"""Before the name of a repository, where a file is expected."""


def hub_file(
    name: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the weights file of a repository, downloaded where it is not in the cache, or of a
    folder.

    Args:
        name: ``USER/REPOSITORY``, with ``@REVISION`` or without; or a folder on this machine.
        revision: branch, tag or commit.
        token: of the user; by default the one that ``hf auth login`` has stored.
        cache_dir: of the library.
        local_files_only: take what is in the cache, and use no network.

    Raises:
        UserError: the extra is not installed, or there is no such repository or file.
    """
    name = name.removeprefix(HUB)
    if (folder := Path(name).expanduser()).is_dir():
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds no {WEIGHTS}; give a folder of push_to_hub")
        return folder / WEIGHTS
    repository, _, named = name.partition("@")
    with hub_errors(f"{WEIGHTS} of {repository} cannot be fetched") as hub:
        return Path(
            hub.HfApi(token=token).hf_hub_download(
                repository,
                WEIGHTS,
                revision=revision or named or None,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )


@contextmanager
def hub_errors(what: str) -> Iterator[Any]:
    """Yield huggingface_hub; raise its errors as a sentence that begins with ``what``.

    Raises:
        UserError: it is not installed, or fails.
    """
    if find_spec("huggingface_hub") is None:
        raise UserError(
            f"{what}: huggingface_hub is not installed; run pip install 'vclr_lightning[hub]'"
        )
    try:
        yield import_module("huggingface_hub")
    except UserError:
        raise
    except (OSError, ValueError) as error:  # of the network, of the hub, of a name
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{what}: {said}") from error
