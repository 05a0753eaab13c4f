"""Build parts of a run when they are needed, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vclr_lightning.core.errors import UserError


def later(node: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Return a function that builds what ``node`` describes, and calls it.

    In a configuration it stands with ``_recursive_: false``, so that nothing below ``node`` is
    built with the rest: an evaluation of several data sets opens each when its turn comes, and
    does not ask for those that are not at hand.

    Args:
        node: what Hydra instantiates: a function with ``_partial_: true``.
        changes: values to put into ``node`` first, by dotted key.

    Raises:
        UserError: from the function, if something below ``node`` finds a mistake.

    Example:
        >>> node = {"_target_": "builtins.dict", "_partial_": True, "a": {"b": 1, "c": 2}}
        >>> later(node, {"a.b": 5})(d=3)
        {'a': {'b': 5, 'c': 2}, 'd': 3}
    """

    def call(**arguments: Any) -> Any:
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        changed = OmegaConf.create(
            OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
        )
        for key, value in (changes or {}).items():
            OmegaConf.update(changed, key, value, merge=False)
        try:
            built = instantiate(changed, _convert_="all")
        except InstantiationException as error:
            raise _mistake(error) or error from error
        return built(**arguments)

    return call


def _mistake(error: BaseException | None) -> UserError | None:
    """The user's mistake that Hydra has wrapped, if it was one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error
