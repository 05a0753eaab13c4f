"""Groups of parameters that an optimizer treats each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

Scales = Mapping[str, tuple[float, float]]

# Of each group: factors of learning rate and weight decay.
TSM_SCALES: Scales = {
    "weights": (1, 1),
    "biases": (2, 0),
    "norms": (1, 0),
    "classifier weight": (5, 1),
    "classifier bias": (10, 0),
}
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def tsm_groups(backbone: nn.Module, classifier: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the parameters to train by the groups of TSM's recipe; empty ones are left out.

    Example:
        >>> backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> groups = tsm_groups(backbone, nn.Linear(4, 2))
        >>> {name: len(parameters) for name, parameters in groups.items()}
        {'weights': 1, 'biases': 1, 'norms': 2, 'classifier weight': 1, 'classifier bias': 1}
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in TSM_SCALES}
    for module in backbone.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = "biases" if name == "bias" else "weights"
            groups["norms" if isinstance(module, NORMS) else kind].append(parameter)
    for name, parameter in classifier.named_parameters():
        kind = "classifier bias" if name.endswith("bias") else "classifier weight"
        groups[kind].append(parameter)
    trained = {name: [p for p in some if p.requires_grad] for name, some in groups.items()}
    return {name: some for name, some in trained.items() if some}


def grouped_optimizer(
    build: Callable[[Iterable[Any]], Optimizer],
    groups: Mapping[str, list[nn.Parameter]],
    *,
    scales: Scales = TSM_SCALES,
) -> Optimizer:
    """Build an optimizer whose groups have their own share of learning rate and weight decay.

    Args:
        build: takes groups of parameters, such as ``partial(SGD, lr=0.1)``.
        groups: parameters by name.
        scales: factors of learning rate and weight decay, by name.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> groups = {"classifier bias": list(nn.Linear(2, 2, bias=False).parameters())}
        >>> optimizer = grouped_optimizer(partial(SGD, lr=0.1, weight_decay=0.5), groups)
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]
        (1.0, 0.0)
    """
    optimizer = build([{"params": some, "name": name} for name, some in groups.items()])
    for group in optimizer.param_groups:
        rate, decay = scales[group["name"]]
        group["lr"] *= rate
        group["weight_decay"] *= decay
    return optimizer
