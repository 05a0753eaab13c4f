"""What TF32 costs a training step in accuracy, simulated on the CPU.

    python -m benchmarks.tf32

Tensor cores round the inputs of a float32 product to 10 bits of mantissa and add in float32. So
does the simulation, in each matrix product and convolution of a step, forward and backward; what
it cannot show is the order in which a device adds. Compared with the step in float32 are losses
and gradients of VCLR after a few steps of training, next to float16 and bfloat16 (autocast), and to
float32 in another order of addition (channels-last).
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from benchmarks.train_step import OurStep, make_batch, make_module
from vclr_lightning.core.types import Batch
from vclr_lightning.models import TinyBackbone, TorchvisionResNet
from vclr_lightning.modules import PretrainModule

aten = torch.ops.aten
PRODUCTS = (
    *(aten.mm, aten.bmm, aten.addmm, aten.baddbmm),
    *(aten.convolution, aten.convolution_backward, aten.linear),
)
MOST = 0.5  # of bfloat16's difference, which TF32's must not exceed


def rounded(x: Tensor) -> Tensor:
    """Return float32 values rounded to 10 bits of mantissa, to nearest and halves away from zero.

    Example:
        >>> rounded(torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 2**-12])).sub(1).mul(2**10).tolist()
        [1.0, 1.0, 0.0]
    """
    bits = x.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class TF32(TorchDispatchMode):
    """Rounds the float32 inputs of products, as tensor cores do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in PRODUCTS:
            args = tree_map(_input, args)
        return func(*args, **(kwargs or {}))


def _input(value: Any) -> Any:
    # Biases, which have one dimension, are added in float32.
    is_factor = isinstance(value, Tensor) and value.dtype == torch.float32 and value.ndim > 1
    return rounded(value) if is_factor else value


def pictured(batch: Batch, seed: int) -> Batch:
    """Return a batch of soft coloured surfaces with a little noise, in place of noise alone.

    Networks with BatchNorm hardly tell pictures of noise apart, and would enlarge the difference
    of any two ways to compute far beyond what happens to photographs.
    """
    rng = torch.Generator().manual_seed(seed)
    views = {}
    for name, view in batch["views"].items():
        videos, clips, channels, frames, height, width = view.shape
        shape = videos * clips, channels * frames
        coarse = torch.rand(*shape, 5, 5, generator=rng)
        surface = interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        noisy = surface + 0.05 * torch.randn(surface.shape, generator=rng)
        views[name] = (255 * noisy.clamp(0, 1)).byte().view_as(view)
    return Batch(**{**batch, "views": views})


class Step(NamedTuple):
    """Losses by objective, and the gradients of all parameters in one vector."""

    losses: dict[str, float]
    gradient: Tensor


def step(module: PretrainModule, batch: Batch, *, how: str = "float32") -> Step:
    """Return losses and gradients of one step, in float32, TF32, bfloat16 or float16."""
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(how)
    context: Any = nullcontext()
    if half is not None:
        context = torch.autocast("cpu", half)
    elif how == "TF32":
        context = TF32()
    module = copy.deepcopy(module)
    with context:
        found = module.training_step(batch, 0)
        if half is None:
            found["loss"].backward()
    if half is not None:
        found["loss"].backward()
    gradients = [p.grad.double().flatten() for p in module.parameters() if p.grad is not None]
    losses = {name: float(loss) for name, loss in found["losses"].items()}
    return Step(losses, torch.cat(gradients))


def difference(one: Step, other: Step) -> tuple[float, float]:
    """Return the largest relative difference of a loss, and that of the gradients' norm."""
    losses = [abs(one.losses[k] - other.losses[k]) / abs(other.losses[k]) for k in other.losses]
    apart = (one.gradient - other.gradient).norm() / other.gradient.norm()
    return max(losses), float(apart)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "TinyBackbone, GroupNorm": lambda: TinyBackbone(width=16, norm="group"),
    "TinyBackbone": lambda: TinyBackbone(width=16),
    "ResNet-18": lambda: TorchvisionResNet(name="resnet18"),
}
LAST = "float32, channels-last"


def measured(network: str, arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Return the largest differences of some seeds, by the way to compute."""
    worst: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):

        def made(seed: int = seed, **options: Any) -> PretrainModule:
            torch.manual_seed(seed)
            return make_module(NETWORKS[network](), 1024, **options)

        def batch(number: int, seed: int = seed) -> Batch:
            number += 1000 * seed
            return pictured(make_batch(arguments.batch, arguments.size, number), number)

        module = made()
        trained = OurStep(module)
        for number in range(arguments.after):
            trained(batch(number), number)
        asked = batch(arguments.after)
        exact = step(module, asked)
        for how in ("TF32", "float16", "bfloat16"):
            worst.setdefault(how, []).append(difference(step(module, asked, how=how), exact))
        last = made(channels_last=True)
        last.load_state_dict(module.state_dict())
        worst.setdefault(LAST, []).append(difference(step(last, asked), exact))
    return {
        how: (max(loss for loss, _ in found), max(gradient for _, gradient in found))
        for how, found in worst.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where TF32 is off by more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="videos in a batch")
    parser.add_argument("--size", type=int, default=64, help="pixels of a picture's edge")
    parser.add_argument("--after", type=int, default=10, help="steps of training before")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    table = Table(title="largest difference from a step in float32", title_justify="left")
    for title in ("network", "products in", "losses", "gradient"):
        table.add_column(title, justify="left" if title in ("network", "products in") else "right")
    missed = False
    for network in arguments.networks:
        found = measured(network, arguments)
        for number, (how, values) in enumerate(found.items()):
            cells = (f"{value:.1e}" for value in values)
            table.add_row("" if number else network, how, *cells)
        table.add_section()
        pairs = zip(found["TF32"], found["bfloat16"], strict=True)
        missed = missed or any(own > MOST * other for own, other in pairs)
    Console().print(table)
    if missed:
        Console().print("[red]missed: TF32 is off by more than half as much as bfloat16[/red]")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
