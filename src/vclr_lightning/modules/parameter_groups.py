"""Parameter groups by name: weight decay and learning rate of norms, biases, heads, layers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from vclr_lightning.core.errors import UserError, check_named
from vclr_lightning.modules.optimization import NORMS

_BLOCK = re.compile(r"(?P<block>(?:[^.]+\.)*?\d+)\..+")


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with a learning rate and weight decay of their own.

    Args:
        parameters: names with wildcards, such as ``"objectives.*"``, or ``"norms"`` and
            ``"biases"``, of any module.
        lr: factor of the learning rate.
        weight_decay: factor of the weight decay.
        layer_decay: further factor of the learning rate for each block between a parameter and the
            end of its encoder; a block is numbered in the names, such as ``layer3.0`` and
            ``blocks.7``, what comes before the first or after the last block is one with it.

    Raises:
        UserError: a factor is negative, or ``layer_decay`` is not above 0.

    Example:
        >>> ParameterGroup(parameters=["norms", "biases"], weight_decay=0).lr
        1.0
    """

    parameters: str | Sequence[str]
    lr: float = 1.0
    weight_decay: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        names = self.parameters
        if not isinstance(names, str) and (
            not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names)
        ):
            raise UserError(
                f"parameters={names!r} must be a name with wildcards, or a list of those"
            )
        if self.lr < 0 or self.weight_decay < 0 or self.layer_decay <= 0:
            raise UserError(
                f"lr={self.lr} and weight_decay={self.weight_decay} of a parameter group must be at"
                f" least 0, and layer_decay={self.layer_decay} above 0"
            )

    def holds(self, name: str, kind: str) -> bool:
        """Return whether a parameter belongs here; ``kind``: ``norms``, ``biases`` or empty."""
        wanted = [self.parameters] if isinstance(self.parameters, str) else self.parameters
        return any(pattern == kind or fnmatchcase(name, pattern) for pattern in wanted)


def parameter_groups(
    module: nn.Module, groups: Mapping[str, ParameterGroup]
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups, as optimizers take them.

    Where several groups hold a parameter, their factors multiply; one that none holds is in
    ``default``. Groups have ``name``, ``lr_factor`` and ``weight_decay_factor``; see
    :func:`build_optimizer`.

    Raises:
        UserError: a group holds no parameter.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
        >>> rules = {"plain": ParameterGroup(parameters=["norms", "biases"], weight_decay=0)}
        >>> [(g["name"], len(g["params"])) for g in parameter_groups(net, rules)]
        [('default', 1), ('plain', 3)]
    """
    found: dict[tuple[str, float], dict[str, Any]] = {}
    depths, unused = _depths(module), set(groups)
    for name, kind, parameter in _kinds(module):
        if not parameter.requires_grad:
            continue
        held = {key: group for key, group in groups.items() if group.holds(name, kind)}
        unused -= held.keys()
        depth = depths.get(name, 0)
        lr = math.prod(group.lr * group.layer_decay**depth for group in held.values())
        label = "+".join(held) or "default"
        group = found.setdefault(
            (label, lr),
            {
                "params": [],
                "name": label,
                "lr_factor": lr,
                "weight_decay_factor": math.prod(rule.weight_decay for rule in held.values()),
            },
        )
        group["params"].append(parameter)
    if unused:
        raise UserError(
            f"the parameter group {min(unused)} holds none of the parameters, such as "
            f"{next(name for name, _ in module.named_parameters())}; correct optim.groups"
        )
    return list(found.values())


def build_optimizer(
    module: nn.Module,
    build: Callable[[Iterable[Any]], Optimizer],
    groups: Mapping[str, ParameterGroup | None],
) -> Optimizer:
    """Build an optimizer of a module's trainable parameters, in groups if there are any.

    Raises:
        UserError: a group holds no parameter, or the optimizer refuses its arguments.
    """
    check_named("optim.groups", groups, what="parameter group", fits=_is_group)
    used = {name: group for name, group in groups.items() if group is not None}
    trained: list[Any] = [p for p in module.parameters() if p.requires_grad]
    if used:
        trained = parameter_groups(module, used)
    try:
        optimizer = build(trained)
    except (TypeError, ValueError) as error:
        raise UserError(f"the optimizer cannot be set up: {error}; check optim") from error
    for group in optimizer.param_groups if used else ():
        group["lr"] *= group.pop("lr_factor")
        group["weight_decay"] = group.get("weight_decay", 0) * group.pop("weight_decay_factor")
    return optimizer


def _is_group(part: object) -> bool:
    return part is None or isinstance(part, ParameterGroup)


def _kinds(module: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Yield name, kind and parameter, each parameter once, in the order of ``parameters()``."""
    owners = dict(module.named_modules())
    for name, parameter in module.named_parameters():
        owner, _, last = name.rpartition(".")
        kind = "norms" if isinstance(owners[owner], NORMS) else "biases" if last == "bias" else ""
        yield name, kind, parameter


def _depths(module: nn.Module) -> dict[str, int]:
    """Return the number of blocks between each parameter of an encoder and the encoder's end."""
    found: dict[str, int] = {}
    for encoder, network in module.named_children():
        if not encoder.endswith("_encoder"):
            continue
        number: dict[str, int] = {}
        names = [name for name, _ in network.named_parameters()]
        for name in names:
            if match := _BLOCK.fullmatch(name):
                number.setdefault(match["block"], len(number))
        last = max(0, len(number) - 1)
        seen = 0
        for name in names:
            match = _BLOCK.fullmatch(name)
            seen = number[match["block"]] if match else seen
            found[f"{encoder}.{name}"] = last - seen
    return found
