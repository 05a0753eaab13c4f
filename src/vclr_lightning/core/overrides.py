"""Values on Hydra's command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")  # needs no quotes
_SPECIAL = ("null", "true", "false", "inf", "nan")
_SYNTAX = re.compile(r"[\"',{}\[\]]|\$\{")  # a list, a sweep, an interpolation or quotes
_PATH = re.compile(r"/([^\\]*[^\\\s])?")  # Hydra reads it unquoted as it is


def hydra_value(value: Any) -> str:
    """Return a value in the syntax of Hydra's command line.

    Example:
        >>> hydra_value("it's"), hydra_value(None), hydra_value([1, "a b"]), hydra_value(True)
        ("'it\\\\'s'", 'null', "[1,'a b']", 'true')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _SPECIAL:
            return value
        # Backslashes stand for themselves, except before a quote.
        inner = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), value)
        return f"'{inner}'"
    return str(value)


def shell_override(key: str, value: object) -> str:
    """Return an override as typed into a shell, for commands that use :func:`quote_overrides`.

    Example:
        >>> print(shell_override("data.root", "/videos"), shell_override("data.root", "/my vidéos"))
        data.root=/videos 'data.root=/my vidéos'
    """
    text = str(value)
    plain = _PATH.fullmatch(text) and not _SYNTAX.search(text)
    return shlex.quote(f"{key}={text if plain else hydra_value(text)}")


def quote_overrides(arguments: Iterable[str]) -> list[str]:
    """Quote values that Hydra cannot read otherwise, such as many paths.

    Values with quotes, commas, brackets or interpolations are left alone, for they may be meant so,
    unless they are paths that exist, such as a checkpoint of a sweep's job.

    Example:
        >>> quote_overrides(["-m", "data.root=/Vidéos/a=b (1)", "num_segments=2,3", "seed=1"])
        ['-m', "data.root='/Vidéos/a=b (1)'", 'num_segments=2,3', 'seed=1']
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    found = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or argument.startswith("-"):
            pass
        elif _SYNTAX.search(value):
            if "/" in value and os.path.exists(value):
                argument = f"{key}={hydra_value(value)}"
        else:
            try:
                parser.parse_override(argument)
            except HydraException:
                argument = f"{key}={hydra_value(value)}"
        found.append(argument)
    return found


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the last words of each key that tell it from the others.

    Example:
        >>> short_keys(["data.seed", "seed", "objective.queue_size", "a.b.lr", "a.c.lr"])
        ['data.seed', 'seed', 'queue_size', 'b.lr', 'c.lr']
    """
    parts = [key.split(".") for key in keys]

    def ending(words: Sequence[str]) -> str:
        for count in range(1, len(words)):
            if sum(other[-count:] == words[-count:] for other in parts) == 1:
                return ".".join(words[-count:])
        return ".".join(words)

    return [ending(words) for words in parts]
