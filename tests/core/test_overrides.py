"""Values arrive as they were typed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import example, given
from hypothesis import strategies as st

from vclr_lightning.core.overrides import hydra_value, quote_overrides, shell_override

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="$"))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT, lambda v: st.lists(v, max_size=3), max_leaves=5
)


def _plain(value: object) -> object:
    if isinstance(value, QuotedString):
        return value.text
    return [_plain(item) for item in value] if isinstance(value, list) else value


@example("null")
@example("-1")
@example("1e5")
@example("/a/b-c_1.txt")
@given(VALUES)
def test_every_value_arrives_as_it_is(value: object) -> None:
    read = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    assert _plain(read.value()) == value


@pytest.mark.parametrize(
    "path", ["/a/Vidéos", "/Zwei Ordner/é", "/a=b", "/clips (1)/x", "/ビデオ", "C:/x;y", "/100%"]
)
def test_paths_need_no_quotes(path: str) -> None:
    (argument,) = quote_overrides([f"data.root={path}"])
    read = OverridesParser.create().parse_override(argument)
    assert (read.key_or_group, _plain(read.value())) == ("data.root", path)


def test_a_path_that_exists_may_have_commas(tmp_path: Path) -> None:
    weights = tmp_path / "num_segments=2,seed=0" / "last.ckpt"
    weights.parent.mkdir()
    typed = f"init={weights}"
    assert quote_overrides([typed]) == [typed]  # two values of a sweep
    weights.touch()
    (argument,) = quote_overrides([typed])
    assert _plain(OverridesParser.create().parse_override(argument).value()) == str(weights)


@given(TEXT)
def test_what_is_put_into_quotes_is_what_was_typed(value: str) -> None:
    (argument,) = quote_overrides([f"key={value}"])
    if argument != f"key={value}":
        assert _plain(OverridesParser.create().parse_override(argument).value()) == value


@pytest.mark.parametrize(
    "argument",
    ["-m", "--cfg", "key=1,2", "key=[é, a]", "key='é", "key=${é}", "key", "~key", "+a=b"],
)
def test_what_may_mean_something_else_stays(argument: str) -> None:
    assert quote_overrides([argument]) == [argument]


@given(TEXT.filter(bool) | TEXT.map("/{}".format))
def test_what_is_shown_can_be_typed(value: str) -> None:
    (argument,) = quote_overrides(shlex.split(shell_override("data.manifest", value)))
    assert _plain(OverridesParser.create().parse_override(argument).value()) == value
