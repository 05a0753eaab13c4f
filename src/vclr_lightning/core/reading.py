"""Text files of others, read within limits, nothing in them resolved or executed; and records."""

from __future__ import annotations

import codecs
import csv
import json
import logging
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing

logger = logging.getLogger(__name__)

MEGABYTE = 1 << 20
_TEXT = 512 * MEGABYTE  # the largest official annotations have 100
_CONFIG = MEGABYTE // 4
_VALUES = 100_000  # plain values of a configuration
_RECORD = 100 * _VALUES
_DEPTH = 50
_MARKS = {  # longer ones first
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER = object()
_CHECKSUM = re.compile(r',?\s*"checksum": (\d{1,10})\s*}\s*$')


def read_text(file: Path, *, most: int = _TEXT) -> str:
    """Return the content of a text file: UTF-8, UTF-16 or UTF-32 by its mark, or else Latin-1.

    Line ends are left as they are.

    Raises:
        UserError: the file cannot be read, has more than ``most`` bytes, or is no text.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = file.write_text("caf\u00e9", encoding="utf-16")
        >>> read_text(file)
        'caf\u00e9'
    """
    try:
        with file.open("rb") as source:
            content = source.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    if len(content) > most:
        raise UserError(
            f"{file} is larger than {most / MEGABYTE:g} MB; check that it is the right file"
        )
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1") if encoding == "utf-8" else "\0"
    if "\0" in text:
        raise UserError(f"{file} is no text file, or of an unknown encoding; save it as UTF-8")
    return text


def parse_json(text: str | bytes, where: str | Path) -> Any:
    """Return the content of a JSON text from the place ``where``.

    Raises:
        UserError: it is no JSON, or is nested too deeply.

    Example:
        >>> parse_json("[" * 100_000, "a.json")
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: a.json is nested too deeply for a JSON file
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is no JSON file, or damaged: {error}") from error
    except RecursionError:
        raise UserError(f"{where} is nested too deeply for a JSON file") from None


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; see :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(file), file)


def read_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file that are not empty, with their line numbers.

    Raises:
        UserError: it cannot be read, or a cell has more than 131,072 characters.
    """
    reader = csv.reader(line.rstrip("\r") for line in read_text(file).split("\n"))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(
            f"{file}, line {reader.line_num}, is no line of a CSV file: {error}"
        ) from error


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses aliases: ten of them, nested, stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*), which is not read")
        return super().compose_node(parent, index)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the plain values of a YAML file; nothing in it is interpolated.

    Raises:
        UserError: it cannot be read, is too large, has tags or aliases, or is no mapping.
    """
    try:
        content = yaml.load(read_text(file, most=_CONFIG), Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file} is damaged, or no plain YAML ({reason}); restore or remove it"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: it maps no names to values; restore or remove it")
    return plain_values(content, file)


def plain_values(
    content: Mapping[Any, Any], where: str | Path, *, most: int = _VALUES
) -> dict[str, Any]:
    """Return a copy of the text, numbers, lists and mappings in ``content``, without the rest.

    Raises:
        UserError: the content of the foreign file ``where`` has more than ``most`` values (by
            default those of a configuration), or they are nested too deeply.

    Example:
        >>> plain_values({"a": (1, "${oc.env:HOME}"), "b": object()}, "a.ckpt")
        {'a': [1, '${oc.env:HOME}']}
    """
    left = most

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if not left or depth > _DEPTH:
            raise UserError(f"{where} is damaged: its values are too many, or nested too deeply")
        if isinstance(value, Mapping):
            pairs = ((str(key), copy(item, depth + 1)) for key, item in value.items())
            return {key: item for key, item in pairs if item is not _OTHER}
        if isinstance(value, list | tuple):
            return [item for one in value if (item := copy(one, depth + 1)) is not _OTHER]
        return value if isinstance(value, str | int | float | None) else _OTHER

    values: dict[str, Any] = copy(content, 0)
    return values


def write_record(file: Path, content: Mapping[str, Any]) -> None:
    """Write values with a checksum, for a later run of this package."""
    with replacing(file) as sink:
        sink.write(with_checksum(json.dumps(content, indent=1)).encode())


def read_record(file: Path) -> dict[str, Any] | None:
    """Return the values of :func:`write_record`; ``None``, with a warning, where it is damaged.

    A file without a checksum, of an earlier version, is accepted.
    """
    if not file.is_file():
        return None
    try:
        return plain_values(parse_with_checksum(read_text(file), file), file, most=_RECORD)
    except UserError as error:
        logger.warning("%s; it is not used", error)
        return None


def read_numbers(file: Path) -> dict[str, float]:
    """Return the numbers of a record; empty where it is damaged or missing."""
    content = read_record(file) or {}
    return {name: value for name, value in content.items() if isinstance(value, int | float)}


def with_checksum(text: str) -> str:
    """Return the JSON of a mapping with a checksum as its last value.

    Example:
        >>> with_checksum('{"a": 1}')
        '{"a": 1, "checksum": 2057863684}'
    """
    body = text.rstrip()[:-1].rstrip()
    comma = "" if body == "{" else ","
    return f'{body}{comma} "checksum": {zlib.crc32(body.encode())}}}'


def parse_with_checksum(text: str, where: str | Path) -> dict[str, Any]:
    """Return the values of a text of :func:`with_checksum` from the place ``where``.

    Raises:
        UserError: it is damaged.

    Example:
        >>> parse_with_checksum(with_checksum('{"a": 1}'), "a.json")
        {'a': 1}
    """
    content = parse_json(text, where)
    found = _CHECKSUM.search(text)
    if not isinstance(content, dict) or (
        found and zlib.crc32(text[: found.start()].encode(errors="replace")) != int(found[1])
    ):
        raise UserError(f"{where} is damaged: its content is not what was written")
    content.pop("checksum", None)
    return content
