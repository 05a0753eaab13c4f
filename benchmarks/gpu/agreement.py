"""A GPU against the CPU in float32, and against itself in deterministic mode."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.gpu.record import Add, Setting
from benchmarks.train_step import make_batch, make_module
from vclr_lightning.core.lightning import move_data_to_device
from vclr_lightning.models import TinyBackbone, TorchvisionResNet
from vclr_lightning.modules import PretrainModule
from vclr_lightning.stages.shared.trainer import build_trainer

FIRST = 1e-5
LATER = {"GroupNorm": 1e-5, "ResNet-18": 5e-2}
"""Largest relative difference of a loss at the first step, and at later ones. On a CPU, another
order of addition (channels-last) makes 4e-7 at the first, and in 20 steps 2e-7 with GroupNorm;
BatchNorm enlarges it to 5e-3."""


class Course(NamedTuple):
    """Of some steps: losses ``(steps,)``, gradients of the first and last, and a queue."""

    losses: Tensor
    gradients: tuple[Tensor, Tensor]
    queue: Tensor


def train(module: PretrainModule, batches: list[Any], device: torch.device) -> Course:
    """Take a step on each batch."""
    module = module.to(device)
    optimizer: Any = module.configure_optimizers()
    losses, gradients = [], []
    for number, batch in enumerate(batches):
        loss = module.training_step(move_data_to_device(batch, device), number)["loss"]
        optimizer.zero_grad()
        loss.backward()
        if number in (0, len(batches) - 1):
            found = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
            gradients.append(torch.cat(found).double().cpu())
        optimizer.step()
        losses.append(loss.detach().double().cpu())
    queue: Tensor = module.objectives["inter"].queue.rows  # type: ignore[union-attr, assignment]
    return Course(torch.stack(losses), (gradients[0], gradients[-1]), queue.double().cpu())


def compare(name: str, course: Course, reference: Course, add: Add) -> None:
    """Add how far two courses are apart."""
    losses = ((course.losses - reference.losses).abs() / reference.losses.abs()).tolist()
    apart = [
        float((one - other).norm() / other.norm())
        for one, other in zip(course.gradients, reference.gradients, strict=True)
    ]
    queue = float((course.queue - reference.queue).abs().max())
    right = losses[0] <= FIRST and max(losses) <= LATER[name]
    add(
        f"{name}: losses of {len(losses)} steps against the CPU",
        f"{losses[0]:.0e} first, {max(losses):.0e} worst: {'agrees' if right else 'DIFFERS'}",
        relative=losses,
        agrees=right,
    )
    add(
        f"{name}: gradient, first and last step; queue",
        f"{apart[0]:.0e}, {apart[1]:.0e}; {queue:.0e}",
        gradients=apart,
        queue=queue,
    )


def repeated(make: Any, batches: list[Any], setting: Setting, add: Add) -> None:
    """Add whether a deterministic run repeats, and resumes, bit for bit."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "half.ckpt"

        def run(epochs: int, *, start: Path | None = None, save: bool = False) -> dict[str, Tensor]:
            module = make()
            trainer = build_trainer(
                max_epochs=epochs,
                accelerator="gpu" if setting.device.type == "cuda" else "cpu",
                deterministic=True,
                directory=name,
            )
            loader: Any = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
            trainer.fit(module, loader, ckpt_path=None if start is None else str(start))
            if save:
                trainer.save_checkpoint(file)
            return {key: value.cpu() for key, value in module.state_dict().items()}

        whole, again = run(2), run(2)
        run(1, save=True)
        resumed = run(2, start=file)
    for what, other in (("repeated", again), ("resumed at half", resumed)):
        differing = [key for key in whole if not torch.equal(whole[key], other[key])]
        add(
            f"deterministic run, {what}",
            "bit-equal" if not differing else f"{len(differing)} of {len(whole)} tensors DIFFER",
            equal=not differing,
            differing=differing[:5],
        )


def agreement(setting: Setting, add: Add) -> None:
    """Train the same on both devices, and twice on one."""
    steps, videos, size = (4, 2, 32) if setting.tiny else (20, 8, 64)
    batches = [make_batch(videos, size, seed) for seed in range(steps)]
    networks: dict[str, Any] = {"GroupNorm": lambda: TinyBackbone(width=8, norm="group")}
    if not setting.tiny:
        networks["ResNet-18"] = lambda: TorchvisionResNet(name="resnet18")

    def made(network: Any) -> PretrainModule:
        torch.manual_seed(0)
        backbone: nn.Module = network()
        return make_module(backbone, 256)

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for name, network in networks.items():
        reference = train(made(network), batches, torch.device("cpu"))
        compare(name, train(made(network), batches, setting.device), reference, add)
    repeated(lambda: made(list(networks.values())[-1]), batches[: steps // 2], setting, add)
