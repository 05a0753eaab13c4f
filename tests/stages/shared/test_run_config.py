"""What is taken from the configuration of a file that others made: plain values, as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from vclr_lightning.app.configuration import with_checkpoint_values
from vclr_lightning.core.errors import UserError
from vclr_lightning.models import TinyBackbone, export_backbone
from vclr_lightning.models.run_record import run_config
from vclr_lightning.stages.shared.finetuned import load_finetuned
from vclr_lightning.stages.shared.network import network_spec
from vclr_lightning.stages.shared.resume import check_same_run

SECRET = "${oc.env:VCLR_SECRET}"
OPEN = {"image_size": None, "frames_per_clip": None, "frame_stride": None}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCLR_SECRET", "1234")


@pytest.mark.parametrize("value", [SECRET, 10**9, "64", -1, True, [64], {"a": 1}])
def test_a_size_is_a_number_that_can_be(value: Any, tmp_path: Path) -> None:
    torch.save({"metadata": {"config": {"image_size": value}}}, tmp_path / "a.ckpt")
    cfg = OmegaConf.create({"ckpt": str(tmp_path / "a.ckpt"), "stage": {"name": "x"}, **OPEN})
    with pytest.raises(UserError, match="says it was made with image_size=") as error:
        with_checkpoint_values(cfg)
    assert "1234" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (2, 7.5)),
        ({"frame_rate": 4}, (2, 4)),
        ({"frame_stride": 3}, (3, None)),
        ({"frame_stride": 3, "frame_rate": 4}, (3, 4)),
    ],
)
def test_a_rate_is_that_of_the_run_unless_a_distance_is_given(
    given: dict[str, Any], expected: tuple[int, float | None], tmp_path: Path
) -> None:
    config = {"frame_stride": 2, "frame_rate": 7.5}
    torch.save({"metadata": {"config": config}}, tmp_path / "a.ckpt")
    values = {**OPEN, "frame_rate": None, "backbone": {"_target_": "a"}, **given}
    cfg = {"ckpt": str(tmp_path / "a.ckpt"), "stage": {"name": "x"}, **values}
    found = with_checkpoint_values(OmegaConf.create(cfg))
    assert (found.frame_stride, found.frame_rate) == expected


@pytest.mark.parametrize("value", [SECRET, 0, "8", -1.5, True, [8]])
def test_a_rate_is_a_number_that_can_be(value: Any, tmp_path: Path) -> None:
    torch.save({"metadata": {"config": {"frame_rate": value}}}, tmp_path / "a.ckpt")
    values = {**OPEN, "frame_rate": None, "backbone": {"_target_": "a"}}
    cfg = OmegaConf.create({"ckpt": str(tmp_path / "a.ckpt"), "stage": {"name": "x"}, **values})
    with pytest.raises(UserError, match="says it was made with frame_rate=") as error:
        with_checkpoint_values(cfg)
    assert "1234" not in str(error.value)


def test_nothing_is_resolved_beside_an_export(tmp_path: Path) -> None:
    file = export_backbone(TinyBackbone(width=4), tmp_path / "last.backbone.safetensors")
    config = tmp_path / "config.yaml"
    config.write_text(f"name: {SECRET}\nother: ${{name}}\nimage_size: 32\n")
    assert run_config(file) == {"name": SECRET, "other": "${name}", "image_size": 32}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "\n".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 20)),
            "alias",
        ),
        ("a: !!python/object/apply:os.system ['true']", "python/object/apply"),
        ("[" * 10_000, "recursion"),
        ("a: " + "9" * 9_000, "digits"),
        ("- 1", "maps no names"),
        ("a: {", "while parsing"),
        ("a: " + "b" * 300_000, "larger than 0.25 MB"),
    ],
)
def test_yaml_that_is_made_to_do_harm(text: str, said: str, tmp_path: Path) -> None:
    file = export_backbone(TinyBackbone(width=4), tmp_path / "last.backbone.safetensors")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        run_config(file)
    assert "config.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_to_continue_shows_what_it_holds_and_no_more(tmp_path: Path) -> None:
    config = {"stage": {"name": "pretrain"}, "epochs": SECRET}
    torch.save({"metadata": {"config": config}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"epochs=\$\{oc.env:VCLR_SECRET\} \(now 3\)"):
        check_same_run(tmp_path / "a.ckpt", config={**config, "epochs": 3})


@pytest.mark.parametrize(
    "metadata", [None, [], "text", {"config": "text"}, {"config": {"stage": 1}}]
)
def test_metadata_of_another_kind_is_that_of_no_run(metadata: Any, tmp_path: Path) -> None:
    torch.save({"metadata": metadata, "a": torch.zeros(1)}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"is no checkpoint of a run|is of stage=None"):
        check_same_run(tmp_path / "a.ckpt", config={"stage": {"name": "pretrain"}})


@pytest.mark.parametrize(
    "module", [{"head": SECRET}, {"dropout": "x"}, {"mean": 3}, {"shift_divisions": []}, "text"]
)
def test_a_classifier_of_impossible_options(module: Any, tmp_path: Path) -> None:
    net = TinyBackbone(width=4, stages=1)
    weights = {f"query_encoder.{name}": value for name, value in net.state_dict().items()}
    linear = torch.nn.Linear(net.num_features, 2).state_dict()
    weights |= {f"classifier.{name}": value for name, value in linear.items()}
    about = {
        "config": {"module": {"head": "tsm", **module} if isinstance(module, dict) else module}
    }
    torch.save({"state_dict": weights, "metadata": {**about, "backbone": net.spec}}, tmp_path / "a")
    with pytest.raises(UserError) as error:
        load_finetuned(tmp_path / "a")
    assert "1234" not in str(error.value)


@pytest.mark.parametrize("values", [{"width": 4, "stages": 30}, {"width": 4096}, {"width": 2**40}])
def test_a_network_to_train_is_compared_with_its_weights(
    values: dict[str, int], tmp_path: Path
) -> None:
    spec = {"_target_": "vclr_lightning.models.TinyBackbone", **values}
    weights = {f"query_encoder.{k}": v for k, v in TinyBackbone(width=4).state_dict().items()}
    torch.save({"state_dict": weights, "metadata": {"backbone": spec}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a.ckpt cannot be of TinyBackbone\(width="):
        network_spec(tmp_path / "a.ckpt")
