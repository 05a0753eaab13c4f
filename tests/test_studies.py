"""Studies: what they run, that they skip and resume it, and what they find."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from vclr_lightning import study as command
from vclr_lightning.app import study_jobs
from vclr_lightning.app.configuration import resolved
from vclr_lightning.app.studies import CELL, SCALES, Study, study, study_files
from vclr_lightning.app.study_differences import differences, found_values
from vclr_lightning.app.study_results import study_result
from vclr_lightning.core.reading import write_record
from vclr_lightning.functional.seed_interval import seed_interval, student_quantile

ROOT = Path(__file__).parents[1]
STUDY = ["python", "-m", "vclr_lightning.study"]
NAMES = {
    *("losses", "segments", "linear", "finetune", "sthv2", "retrieval", "activitynet"),
    *("s3d", "dpc", "hacs", "pictures"),
}


SIX = [0.50, 0.52, 0.57, 0.40, 0.41, 0.44]
TINY = """
title: Do two steps help?
paper: Table 0
question: Are two steps more than one?
arms: {one: [trainer.limit_train_batches=1], two: [trainer.limit_train_batches=2]}
baseline: one
seeds: [0, 1]
measures: {instance: instance R@1}
keys: {instance: val/instance_r1}
pictures: {curve: metrics.*}
published: {one: {instance: 20}, two: {instance: 30}, other: {instance: 40}}
words: [backbone=tiny, backbone.width=4, backbone.stages=1, trainer=cpu, image_size=32,
  queue_size=16, batch_size=4, epochs=1, data.holdout=0.34, callbacks.online.every_n_epochs=1]
scales: {small: {}, paper: {}}
"""


def test_every_table_and_figure_has_its_study() -> None:
    assert set(study_files()) == NAMES
    named = " ".join(study(name).paper for name in NAMES)
    assert {int(n) for n in re.findall(r"Table (\d+)", named)} == set(range(1, 11))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_commands_of_every_arm_compose(name: str, scale: str) -> None:
    paths = {f"paths.{path}": f"/{path}" for path, value in study(name, scale).paths.items()}
    one = study(name, scale, paths)
    assert one.baseline in one.arms
    assert set(one.against.values()) <= set(one.arms)
    arms = {arm: one.commands(arm, 1) for arm in one.arms}
    plain = {}
    for number, (arm, (training, *after)) in enumerate(arms.items()):
        if number == 0:  # the other arms differ by few keys, and in what follows by paths alone
            for words in (training.words, *(later.words for later in after)):
                checked(words)
        cfg = OmegaConf.to_container(composed(training.words), resolve=False)
        assert isinstance(cfg, dict)
        plain[arm] = repr({**cfg, "name": ""})
    assert len(set(plain.values())) == len(plain)  # no two arms are one
    assert set(one.gflop) <= set(one.arms)
    assert all(one.gpu_hours(arm) for arm in one.gflop)


def composed(words: Sequence[str]) -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=list(words))


def checked(words: Sequence[str]) -> None:
    """Compose and check a command, as far as it does not need its weights."""
    cfg = composed(words)
    assert cfg.seed == 1
    if cfg.stage.get("trains", True):
        assert resolved(cfg)
    else:
        assert OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_student_quantile_is_that_of_scipy(freedom: int) -> None:
    for level in (0.5, 0.9, 0.95, 0.999):
        wanted = stats.t.ppf((1 + level) / 2, freedom)
        assert student_quantile(level, freedom) == pytest.approx(wanted, rel=1e-9)


def test_the_interval_over_seeds_is_that_of_a_paired_test() -> None:
    ours, others = SIX[:3], SIX[3:]
    wanted = stats.ttest_rel(ours, others).confidence_interval(0.95)
    _, low, high = seed_interval(ours, others)
    assert (low, high) == pytest.approx((wanted.low, wanted.high))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a study of its own in options/."""
    (tmp_path / "options" / "study").mkdir(parents=True)
    (tmp_path / "options" / "study" / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "options"


def measured(one: Study, values: dict[str, list[float]]) -> None:
    """Leave cells that are done, as if they had been run."""
    for arm, of_arm in values.items():
        for seed, value in enumerate(of_arm):
            cell = one.cell_folder(arm, seed)
            commands = [asdict(one.commands(arm, seed)[0])]
            done = {"commands": commands, "done": [str(cell)], "failed": ""}
            write_record(cell / CELL, done)
            write_record(cell / "result.json", {"val/instance_r1": value})


def test_numbers_are_paired_by_seed_and_compared_with_the_paper(own: Path) -> None:
    one = replace(study("tiny", folder=own), seeds=[0, 1, 2])
    measured(one, {"one": SIX[3:], "two": SIX[:3]})
    values = found_values(one)["instance"]
    assert values == {"one": dict(enumerate(SIX[3:])), "two": dict(enumerate(SIX[:3]))}
    found = differences(one, "instance", values)["two"]
    assert found.value == pytest.approx(0.34 / 3)
    result = study_result(one)
    assert "two is highest by instance R@1, 53.0 ± 3.6 %" in result.summary
    assert "the same direction as published of two (+10.0 from one)" in result.summary
    # the other way round, and with a difference that the seeds do not bear out
    measured(one, {"one": SIX[:3], "two": SIX[3:]})
    assert "a contradiction of the published difference of two" in study_result(one).summary
    measured(one, {"one": [0.1, 0.5, 0.3], "two": [0.5, 0.1, 0.4]})
    summary = study_result(one).summary
    assert "no difference is measured between two and one" in summary
    assert "neither confirmed nor contradicted" in summary


def test_arms_have_baselines_of_their_own(own: Path) -> None:
    one = replace(study("tiny", folder=own), arms={a: [] for a in "abc"}, baseline="a")
    one = replace(one, against={"c": "b"})
    values = {arm: {0: value, 1: value} for arm, value in zip("abc", (0.1, 0.4, 0.5), strict=True)}
    found = differences(one, "instance", values)
    assert {arm: f.baseline for arm, f in found.items()} == {"b": "a", "c": "b"}
    assert found["c"].value == pytest.approx(0.1)


def test_intervals_are_over_groups_of_videos_where_scores_are_known(own: Path) -> None:
    one = replace(study("tiny", folder=own), keys={"instance": "probe/top1"})
    rng = np.random.default_rng(0)
    right = rng.random((2, 2, 12)) < [[[0.3]], [[0.9]]]  # arm, seed, video
    for arm, of_arm in zip(one.arms, right, strict=True):
        for seed, scores in enumerate(of_arm):
            file = one.cell_folder(arm, seed) / "probe" / "scores.csv"
            file.parent.mkdir(parents=True)
            rows = (f"v{k},g{k // 2},,{int(hit)}.0" for k, hit in enumerate(scores))
            file.write_text("\n".join(["video,group,class,top1", *rows]) + "\n")
    means = right.mean(2)
    values = {arm: dict(enumerate(m)) for arm, m in zip(one.arms, means.tolist(), strict=True)}
    found = differences(one, "instance", values)["two"]
    assert found.over == "6 groups of 12 videos"
    assert found.value == pytest.approx((means[1] - means[0]).mean())
    # the same by scipy: groups are of equal size, so each counts as one observation
    gain = (right[1].mean(0) - right[0].mean(0)).reshape(6, 2).mean(1)
    wanted = stats.bootstrap((gain,), np.mean, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.04)
    # an interval above 0 is not enough where a seed is on the other side
    assert found.sign == 1
    assert replace(found, seeds=[0.5, -0.01]).sign == 0
    assert replace(found, seeds=[0.5]).sign == 0


def test_a_training_of_another_study_is_taken_from_there(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "study" / "next.yaml").write_text(TINY + "then: {evaluate: ['ckpt=${run}/last.ckpt']}\n")
    ran: list[str] = []
    monkeypatch.setattr(study_jobs, "_run", lambda one: ran.append(one.folder))
    first, second = study("tiny", folder=own), study("next", folder=own)
    measured(first, {"one": [0.5]})
    done = first.cell_folder("one", 0)
    (done / "last.ckpt").write_bytes(b"weights")
    for arm, seed, wanted in (("one", 0, [1]), ("one", 1, [0, 1]), ("two", 0, [0, 1])):
        commands = second.commands(arm, seed)
        write_record(second.folder / study_jobs.PLAN, {"study": asdict(second), "given": []})
        ran.clear()
        cell = {"folder": str(second.folder), "cell": f"{arm}/seed{seed}"}
        study_jobs.run_cell(OmegaConf.create(cell))
        assert ran == [commands[k].folder for k in wanted]
        taken = second.cell_folder(arm, seed) / "last.ckpt"
        assert taken.is_file() == (wanted == [1])
    assert (second.cell_folder("one", 0) / "last.ckpt").read_bytes() == b"weights"


def test_all_studies_in_an_order_that_serves_them(
    own: Path,
    video_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = {path for name in NAMES for path in study(name, "paper").paths}
    given = ["all", "scale=paper", "seeds=0", "--commands", *(f"paths.{p}=/{p}" for p in named)]
    given = [word for word in given if word not in {f"paths.{a}=/{a}" for a in ("seco", "vclr")}]
    assert command.main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    done: set[str] = set()
    for line in lines:
        words = shlex.split(line)
        for word in words[3:-1]:
            needed = re.fullmatch(r"\w+=(outputs/study/.*)/last\.ckpt", word)
            assert not needed or needed[1] in done, line
        done.add(words[-1].removeprefix("run_dir="))
    assert len({folder.split("/")[2] for folder in done}) == len(NAMES)
    # two studies are two multiruns of one process
    (own / "study" / "next.yaml").write_text(TINY)
    files = {name: own / "study" / f"{name}.yaml" for name in ("next", "tiny")}
    for place in (command, "vclr_lightning.app.studies"):
        monkeypatch.setattr(
            f"{getattr(place, '__name__', place)}.study_files", lambda *_, **__: files
        )
    monkeypatch.setenv("XDG_CACHE_HOME", str(own / "cache"))
    words = [f"data.root={video_folder}", "data.num_workers=0", "trainer.threads=1", "seeds=0"]
    assert command.main(["all", *words, "--record", "recorded"]) == 0
    for name in files:
        assert json.loads((own.parent / "recorded" / name / "small.json").read_text())["values"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "there is no study 'nothing'; there are: activitynet"),
        (["losses", "scale=large"], "has no scale 'large'; it has: small, paper"),
        (["losses", "seeds=a"], "seeds=a must be whole numbers"),
        (["losses", "arms=vclr,none"], "there is no arm 'none'"),
        (["losses", "launcher=cloud"], "must be one of: basic, parallel, slurm"),
        (
            ["losses", "scale=paper", "--commands"],
            "give paths.k400=... paths.k400_lists=... paths.moco=..., which losses takes",
        ),
        (["losses", "paths.k400=/x"], "losses takes no paths.k400"),
        (["all", "arms=vclr"], "not every study can take arms="),
        (["all", "paths.k4000=/x"], "not every study can take paths.k4000="),
        (["all", "scale=paper"], "give paths."),
        (["losses", "what"], "what must be KEY=VALUE"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    words: list[str], said: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_list_needs_no_torch_and_fits_the_screen(own: Path) -> None:
    one = study("tiny", folder=own)
    measured(one, {"one": [0.5]})
    code = "import sys; from vclr_lightning.study import main; main(sys.argv[1:]); " + (
        "print('torch' in sys.modules)"
    )
    words = ["list", "--config-dir", "options"]
    lines = subprocess.check_output([sys.executable, "-c", code, *words], text=True).splitlines()
    assert lines[-1] == "False"
    assert {line.split()[0] for line in lines[1:-1]} == NAMES | {"tiny"}
    assert max(map(len, lines)) <= 80
    assert "1 of 4 done" in next(line for line in lines if line.startswith("tiny"))


def test_words_go_where_they_belong() -> None:
    given = ["trainer.threads=1", "data.root=/videos", "epochs=2"]
    training, evaluation = study("losses").commands("vclr", 3, given)
    assert {*given, "seed=3", "objective=vclr"} <= set(training.words)
    assert {*given[:2], "ckpt=outputs/study/losses/small/vclr/seed3/last.ckpt"} <= set(
        evaluation.words
    )
    assert "epochs=2" not in evaluation.words
    assert "trainer.threads=1" not in training.what
    paths = {f"paths.{name}": "/x" for name in ("k400", "k400_lists", "moco")}
    *_, suite = study("losses", "paper", paths).commands("vclr", 0, given)
    assert "data.root=/videos" not in suite.words
    one = study("finetune", "paper", {f"paths.{n}": "/x" for n in ("ucf101", "hmdb51")})
    assert one.missing() >= {"paths.imagenet", "paths.ucf101_lists", "paths.hmdb51_lists"}
    assert not {"paths.seco", "paths.vclr", "paths.ucf101"} & one.missing()


@pytest.mark.slow
def test_a_killed_study_is_continued_and_recorded(
    own: Path,
    video_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(own / "cache"))
    words = ["tiny", f"data.root={video_folder}", "data.num_workers=0", "trainer.threads=1"]
    words += ["--config-dir", "options"]
    one = study("tiny", folder=own)
    first, second = one.cell_folder("one", 0), one.cell_folder("two", 0)
    started = [sys.executable, "-m", "vclr_lightning.study", *words]
    with (
        (own / "log").open("wb") as log,
        subprocess.Popen(started, stdout=log, stderr=log) as running,
    ):
        until = time.monotonic() + 240
        while not (second / CELL).is_file() and running.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        running.send_signal(signal.SIGKILL)
    assert (first / "result.json").is_file(), (own / "log").read_text()
    assert not (second / "result.json").exists()
    assert found_values(one)["instance"].keys() == {"one"}
    before = (first / "last.ckpt").stat().st_mtime_ns
    record = os.path.relpath(own / "recorded")
    assert command.main([*words, "--record", record]) == 0
    assert (first / "last.ckpt").stat().st_mtime_ns == before
    values = found_values(one)["instance"]
    assert {arm: sorted(of_arm) for arm, of_arm in values.items()} == {"one": [0, 1], "two": [0, 1]}
    page = one.folder / "study.md"
    assert "| two | 2 |" in page.read_text()
    assert "| other |  |  |  | 40 |" in page.read_text()
    recorded = json.loads((own / "recorded" / "small.json").read_text())
    assert recorded["values"]["instance"]["two"]["1"] == values["two"][1]
    readme = own / "recorded" / "README.md"
    assert "## Two cores" in readme.read_text()
    assert "Not yet run." in readme.read_text()  # of the paper's scale
    assert "![curve, two](small-two-curve.csv)" in readme.read_text()
    copied = own / "recorded" / "small-two-curve.csv"
    assert copied.read_bytes() == (second / "metrics.csv").read_bytes()
    # again: nothing is run, the page is written anew, and what people wrote stays
    page.unlink()
    readme.write_text(f"{readme.read_text()}\n## Findings\n\nOurs.\n")
    capfd.readouterr()
    assert command.main([*words, "--record", record]) == 0
    assert "INFO" not in capfd.readouterr().err
    assert page.is_file()
    assert readme.read_text().endswith("\n## Findings\n\nOurs.\n")
    # other words are other runs
    assert command.main([*words, "optim.base_lr=3"]) == 2
    assert "has been run with other words (optim.base_lr=3)" in capfd.readouterr().err


def documented() -> list[list[str]]:
    """The commands of studies in the documentation and in the records."""
    pages = [ROOT / "docs" / f"{name}.md" for name in ("studies", "reproduce")]
    pages += (ROOT / "experiments").glob("*/README.md")
    lines = [line for page in pages for line in page.read_text().splitlines()]
    return [shlex.split(line)[3:] for line in lines if line.startswith(f"{' '.join(STUDY)} ")]


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_documented_commands_are_understood(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [] if "list" in words else ["--commands"]
    assert command.main([word for word in words if word != "--commands"] + shown) == 0
    assert capsys.readouterr().out


def test_a_study_of_your_own_as_documented(own: Path) -> None:
    text = (ROOT / "docs" / "studies.md").read_text()
    (own / "study" / "mine.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    one = study("mine", folder=own)
    for arm in one.arms:
        for each in one.commands(arm, 1):
            checked(each.words)
