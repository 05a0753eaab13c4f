"""The connection to a Dask scheduler, and whether all machines of its cluster run the same."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import notice

_SAME = ("vclr_lightning", "distributed", "av")  # the same bytes need the same encoder
_PATIENCE = 5.0  # seconds for an answer to a connection


def connected(scheduler: str) -> Any:
    """Return a client of the scheduler at an address, or in a file that the scheduler wrote.

    Raises:
        UserError: Dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client
        from distributed.versions import VersionMismatchWarning
    except ImportError as error:
        raise UserError(
            f"--scheduler {scheduler} needs Dask; run pip install 'vclr_lightning[dask]'"
        ) from error
    if not scheduler.strip():
        raise UserError("--scheduler is empty; give an address, such as tcp://HOST:8786")
    address = _address_in(Path(scheduler)) if scheduler.endswith(".json") else scheduler
    # What it would report in a log is said in one sentence here.
    for name in ("distributed", "distributed.client"):  # which Dask gives a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    waiting = threading.Timer(2, notice, [f"waiting for the Dask scheduler at {address}"])
    waiting.start()
    try:
        with ThreadPoolExecutor(1) as thread:  # this one may have a loop, as in a notebook
            thread.submit(asyncio.run, _shake_hands(address)).result()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)
            return Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split()) or "something else does, as a dashboard would"
        raise UserError(
            f"no Dask scheduler answers at {address} ({why}); start one with dask scheduler, or "
            "leave --scheduler out"
        ) from error
    finally:
        waiting.cancel()


def _address_in(file: Path) -> str:
    """Return the address in a file that a scheduler wrote."""
    if not file.is_file():
        raise UserError(
            f"--scheduler {file} does not exist; start dask scheduler --scheduler-file {file}, or "
            "give its address"
        )
    try:
        return str(json.loads(file.read_text())["address"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--scheduler {file} is no file of a Dask scheduler") from error


async def _shake_hands(address: str) -> None:
    """Connect within a time limit: a client waits forever for the answer of another server."""
    import dask
    from distributed.comm import connect
    from distributed.security import Security

    limit = dask.utils.parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    connecting = connect(address, limit, **Security().get_connection_args("client"))
    comm = await asyncio.wait_for(connecting, limit + _PATIENCE)
    await comm.close()


def check_versions(client: Any) -> int:
    """Compare the scheduler and the workers with this process; return how many workers there are.

    Raises:
        UserError: one of them has another version.
    """
    found = client.get_versions(check=False, packages=list(_SAME))
    machines = {"the Dask scheduler": found["scheduler"]}
    machines |= {f"the worker {name}": about for name, about in found["workers"].items()}
    for machine, about in machines.items():
        packages = {"python": _minor(about["host"]["python"])}
        compare_versions(packages | {name: about["packages"].get(name) for name in _SAME}, machine)
    return len(found["workers"])


@cache
def own_versions() -> dict[str, str | None]:
    """Return the versions of what must be the same on all machines."""
    found: dict[str, str | None] = {"python": _minor(".".join(map(str, sys.version_info)))}
    for name in _SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def compare_versions(theirs: Mapping[str, str | None], machine: str) -> None:
    """Raise ``UserError`` where the versions of another process differ from those of this one."""
    for name, mine in own_versions().items():
        if (other := theirs.get(name)) != mine:
            raise UserError(
                f"{machine} has {name} {other or '(not installed)'}, and this one {mine}; install "
                "the same versions on all machines"
            )
