"""The check of a GPU, as far as the device: every part runs on the CPU, in tiny sizes."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import record
from benchmarks.gpu.agreement import Course, compare
from benchmarks.gpu.cases import BASELINE, CASES
from benchmarks.gpu.loading import fastest_step
from benchmarks.gpu.peaks import PEAKS, find_peak, peak_rate
from benchmarks.gpu.record import Record, Setting, measure, out_of_memory
from benchmarks.gpu.steps import turns

from vclr_lightning.core.errors import CodeFault

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round of a comparison collects it, which takes long where much is loaded."""
    monkeypatch.setattr(gc, "collect", lambda generation=2: 0)


def test_every_part_runs_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    assert gpu.check(tmp_path, tiny=True, apart=False) == 0, capsys.readouterr().out
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 or "wrote" in printed.splitlines()[-1]
    whole = json.loads((tmp_path / "gpu.json").read_text())
    assert whole["torch"] == torch.__version__
    parts = {part["part"]: part for part in whole["parts"]}
    assert list(parts) == list(gpu.PARTS)
    assert {part["status"] for part in parts.values()} == {"done"}
    exact = [row for row in parts["agreement"]["rows"] if "deterministic" in row["what"]]
    assert [row["equal"] for row in exact] == [True, True]
    cases = {row["case"]: row for row in parts["steps"]["rows"] if "case" in row}
    assert len(cases) == 7
    both = [row["case"] for row in parts["compiled"]["rows"] if "case" in row]
    assert both == ["bf16, channels_last", "bf16, channels_last, compile"]
    assert not [row for part in parts.values() for row in part["rows"] if "failed" in row]
    assert fastest_step(tmp_path) == max(
        row["videos_per_s"] for name, row in cases.items() if "released" not in name
    )
    bound = parts["loading"]["rows"][-1]
    assert bound["bound"] == ("loading" if bound["loader"] < bound["step"] else "training")
    assert parts["svm"]["rows"][0]["solved"]


def test_a_part_that_fails_keeps_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(setting: Setting, add: Any) -> None:
        add("first", "1 ms", ms=1)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(gpu, "import_module", lambda name: type("Part", (), {"svm": fails}))
    monkeypatch.setattr(gpu, "PARTS", {"svm": ("x", 5.0), "late": ("x", 5.0)})
    monkeypatch.setattr(gpu, "WHOLE", gpu._START + 1)
    began = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(began, 2.0))
    assert gpu.check(tmp_path, tiny=True, apart=False) == 2
    first, late = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [row["what"] for row in first["rows"]] == ["first"]
    assert first["status"] == "failed"
    assert first["reason"].startswith("the device's memory is full: OutOfMemoryError: CUDA out")
    assert late["status"] == "cut off"


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("sleep 60", "cut off", "after 0 s, its share of the time"),
        ("exit 3", "failed", "its process ended with status 3; see svm.log"),
    ],
)
def test_processes_are_cut_off(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: str,
    reason: str,
) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nexec {script}\n" if "sleep" in script else f"#!/bin/sh\n{script}\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(gpu, "_START", 0.3 if "sleep" in script else 30.0)
    Record(tmp_path / "svm.json", part="svm").add("first", "1 ms")
    gpu.start_part("svm", tmp_path, 0.2)
    found = gpu.read_part(tmp_path, "svm")
    assert (found["status"], found["reason"]) == (status, reason)
    assert [row["what"] for row in found["rows"]] == ["first"]


def test_without_a_gpu_one_sentence_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: there is no GPU")
    assert "python -m benchmarks.gpu --tiny" in said
    assert len(said.splitlines()) == 1


def test_courses_that_differ_are_told_from_those_that_agree() -> None:
    course = Course(torch.tensor([2.0, 3.0]), (torch.ones(3), torch.ones(3)), torch.ones(2, 2))
    rows: list[dict[str, Any]] = []

    def add(what: str, shown: str, **values: Any) -> None:
        rows.append({"shown": shown, **values})

    for scale in (1 + 1e-6, 1 + 1e-3):
        compare("ResNet-18", course._replace(losses=course.losses * scale), course, add)
    assert [row["agrees"] for row in rows[::2]] == [True, False]
    assert "DIFFERS" in rows[2]["shown"]


@pytest.mark.parametrize(
    ("card", "name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100", 312),
        ("NVIDIA A100 80GB PCIe", "A100", 312),
        ("NVIDIA H100 80GB HBM3", "H100 SXM", 989.5),
        ("NVIDIA H100 PCIe", "H100 PCIe", 756),
        ("NVIDIA H200", "H200 SXM", 989.5),
        ("NVIDIA L40S", "L40S", 362),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 165.2),
        ("Tesla V100-SXM2-16GB", "V100 SXM2", None),
        ("Tesla V100-PCIE-32GB", "V100 PCIe", None),
        ("Tesla T4", "T4", None),
    ],
)
def test_cards_are_known_by_their_names(card: str, name: str, bf16: float | None) -> None:
    peak = find_peak(card)
    assert peak is not None
    assert peak.name == name
    assert peak_rate(peak, "bf16") == bf16
    assert peak_rate(peak, "tf32") == (peak.tf32 or peak.float32)


def test_turns_go_on_with_fewer_videos_where_memory_is_short() -> None:
    seen: list[int] = []

    def step(batch: Any, number: int) -> None:
        seen.append(len(batch["video_id"]))
        if seen[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    ready = {BASELINE: step, CASES[2]: step}
    found, videos = turns(ready, 8, Setting(device=CPU, tiny=True))
    assert videos == 2
    assert list(found.seconds) == [BASELINE.name, CASES[2].name]
    assert seen[:3] == [8, 4, 2]


def test_other_cards_have_no_peak() -> None:
    assert find_peak("NVIDIA L4") is None  # no L40S
    assert find_peak("NVIDIA GeForce RTX 4090D") is None
    assert peak_rate(None, "fp32") is None
    assert all(peak.source for _, peak in PEAKS)


def test_memory_that_is_full_is_told_from_other_faults(tmp_path: Path) -> None:
    assert out_of_memory(RuntimeError("CUDNN_STATUS_ALLOC_FAILED"))
    assert not out_of_memory(RuntimeError("sizes differ"))
    assert not out_of_memory(ValueError("out of memory"))
    fault = CodeFault("InterFrame", "OutOfMemoryError")
    fault.__cause__ = torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert out_of_memory(fault)

    def fails(setting: Setting, add: Any) -> None:
        raise ValueError("x" * 1000)

    measure("svm", fails, Setting(device=CPU, folder=tmp_path))
    assert len(gpu.read_part(tmp_path, "svm")["reason"]) == record._LONGEST
