"""Commands in README and docs parse and compose, and their Python runs."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRAIN = ["-m", "vclr_lightning.train"]


def _commands() -> list[tuple[str, list[str]]]:
    """Every shell command of every page, as (page, words)."""
    found = []
    for page in PAGES:
        for language, body in BLOCK.findall(page.read_text()):
            if language not in ("bash", "sh", "console"):
                continue
            for line in body.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words:
                    found.append((page.name, words))
    return found


COMMANDS = _commands()


def _training(words: list[str]) -> list[str] | None:
    """What a command gives to a training, which python or torchrun starts; ``None`` for others."""
    at = words.index("-m") if "-m" in words else 0
    return words[at + 2 :] if words[at : at + 2] == TRAIN else None


def test_pages_show_commands() -> None:
    assert any(_training(words) for _, words in COMMANDS)
    assert any(words[0] == "vclr" for _, words in COMMANDS)


def test_only_known_programs_are_shown() -> None:
    known = {"make", "vclr", "python", "pip", "git", "cd", "torchrun", "wandb", "mlflow"}
    known |= {"srun", "dask"}
    assert {words[0] for _, words in COMMANDS} <= known


def test_options_of_dask_exist() -> None:
    for _, words in COMMANDS:
        if words[0] == "dask":
            command = importlib.import_module(f"distributed.cli.dask_{words[1]}").main
            assert command.make_context("dask", words[2:]).params["scheduler_file"]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(overrides, id=f"{page}: {' '.join(overrides)}"[:90])
        for page, words in COMMANDS
        if (overrides := _training(words)) is not None and "--help" not in words
    ],
)
def test_training_commands_compose(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.override_parser.overrides_parser import OverridesParser

    plain = [word for word in overrides if word not in ("-m", "--multirun")]
    if "--config-dir" in plain:  # the project that the page builds
        at = plain.index("--config-dir")
        where = ROOT / "examples" / "own_method" / plain[at + 1]
        plain[at : at + 2] = [f"hydra.searchpath=[file://{where}]"]
    parser = OverridesParser.create()
    first = []
    for override in parser.parse_overrides(plain):
        if override.is_sweep_override():
            value = next(iter(override.sweep_string_iterator()))
            first.append(f"{override.get_key_element()}={value}")
        else:
            first.append(override.input_line)
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        assert compose("config", overrides=first)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{page}: {' '.join(words)}"[:90])
        for page, words in COMMANDS
        if words[0] == "vclr"
    ],
)
def test_vclr_commands_parse(words: list[str]) -> None:
    from vclr_lightning.cli import build_parser

    if ">" in words:
        words = words[: words.index(">")]
    if words[1].startswith("--"):  # prints, and ends
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(words[1:])
    else:
        build_parser(words[1]).parse_args(words[1:])


def _started(page: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Environments of a first rank, by the launchers of a page, and what each gives to a run."""
    from torch.distributed.run import get_args_parser

    for language, body in BLOCK.findall((ROOT / "docs" / page).read_text()):
        for line in body.splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if not words or words[0] not in ("torchrun", "srun"):
                continue
            given = words[words.index("vclr_lightning.train") + 1 :]
            if words[0] == "torchrun":
                options = get_args_parser().parse_args(words[1:])
                each, nodes = int(options.nproc_per_node), int(options.nnodes.split(":")[-1])
                env = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": str(each)}
                yield env | {"WORLD_SIZE": str(each * nodes), "RANK": "0"}, given
            else:
                asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", body, re.MULTILINE))
                nodes, each = int(asked["nodes"]), int(asked["ntasks-per-node"])
                assert asked["gpus-per-node"] == str(each)
                env = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(nodes * each)}
                yield env | {"SLURM_STEP_NUM_NODES": str(nodes), "SLURM_PROCID": "0"}, given


def test_launchers_start_as_many_processes_as_the_run_has() -> None:
    from hydra import compose, initialize_config_module

    from vclr_lightning.core.launcher import find_launch

    found = []
    for environment, overrides in (*_started("running.md"), *_started("downstream.md")):
        with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
            trainer = compose("config", overrides=overrides).trainer
        launch = find_launch(environment, devices=trainer.devices, nodes=trainer.num_nodes)
        found.append((launch.by, trainer.devices, trainer.num_nodes))
    each = ("torchrun", 8, 2)
    assert found == [("torchrun", 8, 1), each, ("srun", 8, 2), each]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {words[1] for _, words in COMMANDS if words[0] == "make" and len(words) > 1}
    assert shown <= targets


def test_links_between_pages_lead_somewhere() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


# What a page takes for granted.
_GIVEN = {
    "python.md": "folder, cache = Path('{videos}'), Path('cache')",
    "weights.md": "folder, cache = Path('{videos}'), Path('cache')",
    "downstream.md": """
import numpy as np
import pytorch_lightning as pl
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
train, val = ensure_manifest('{videos}', cache_dir='cache').hold_out(0.34, seed=0)
data = VideoDataModule(
    train=train,
    val=val,
    samplers={"tuples": TupleSampler()},
    transform=PretrainTransform(size=32),
    eval_transform=EvalTransform(size=32, resize=36),
    reader=PyAVReader(),
    batch_size=4,
    num_workers=0,
    eval_frames=4,
)
trainer = pl.Trainer(
    max_epochs=1,
    accelerator="cpu",
    use_distributed_sampler=False,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
proposals, truths = [np.array([[0.0, 9.0, 0.5]])], [np.array([[1.0, 9.0]])]
""",
}
# What shows that a page ran to its end.
_FOUND = {
    "callbacks.md": "last.exists() and 'epoch 2/2, step 16' in Path('train.log').read_text()",
    "python.md": "len(features) == 2",
    "extending.md": "any(n.endswith('key_head.weight') for n, _ in module.named_parameters())",
    "weights.md": "features.shape == (2, 512) and len(table.row('untrained').values['r1']) == 3",
    "downstream.md": "Path('attention/gradcam.json').exists()",
    "probes.md": "follow.updates == 16",
}


def test_python_of_all_pages_runs_as_files(video_folder: Path, tmp_path: Path) -> None:
    """Each page is a script, and all run in one process, as its start takes the longest."""
    files = []
    for page in PAGES:
        blocks = [
            body for language, body in BLOCK.findall(page.read_text()) if language == "python"
        ]
        if not blocks:
            continue
        given = _GIVEN.get(page.name, "").replace("{videos}", str(video_folder))
        found = f"assert {_FOUND[page.name]}" if page.name in _FOUND else ""
        script = tmp_path / f"{page.stem}_page.py"
        text = "\n".join(["from pathlib import Path", given, *blocks, found])
        script.write_text(text.replace('"/anet/', '"anet/'))
        files.append(str(script))
    assert len(files) >= 7
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "pages_as_files.py"), str(video_folder), *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
