"""Build parts of a run when they are needed, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def later(node: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that builds what ``node`` describes, and calls it.

    In a configuration it stands with ``_recursive_: false``, so that nothing below ``node`` is
    built with the rest: an evaluation of several data sets opens each when its turn comes, and
    does not ask for those that are not at hand.

    Args:
        node: what Hydra instantiates: a function with ``_partial_: true``.

    Example:
        >>> inner = {"_target_": "builtins.list"}
        >>> later({"_target_": "builtins.dict", "_partial_": True, "a": inner})(b=1)
        {'a': [], 'b': 1}
    """

    def call(**arguments: Any) -> Any:
        from hydra.utils import instantiate

        return instantiate(node)(**arguments)

    return call
