"""Networks as ONNX, a program that other runtimes execute; an optional dependency."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.agreement import check_features

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(
    network: nn.Module, file: IO[bytes], *, pixels: Tensor, metadata: Mapping[str, str]
) -> str:
    """Write a network as ONNX, and compare its features as onnxruntime computes them.

    Its input is ``pixels``, normalised, of any number of pictures or clips, and of any size where
    the network computes the same at each; its output is ``features``.

    Args:
        network: in evaluation mode.
        file: where to.
        pixels: input by which it is traced.
        metadata: kept in the file.

    Returns:
        A sentence on how well the features agree.

    Raises:
        UserError: the extra is not installed, the network cannot be exported, or computes other
            features there.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UserError(
            f"ONNX needs {', '.join(missing)}, not installed here; run "
            "pip install 'vclr_lightning[onnx]'"
        )
    sizes = dict.fromkeys(range(2, pixels.ndim), torch.export.Dim.AUTO)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about its own code
        exporter = logging.getLogger("torch.onnx")
        level = exporter.level
        exporter.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                network,
                (pixels,),
                dynamo=True,
                input_names=["pixels"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC, **sizes},),
                verbose=False,
            )
        except Exception as error:  # whatever the exporter meets
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"PyTorch cannot export a {type(network).__name__} to ONNX: {said}"
            ) from error
        finally:
            exporter.setLevel(level)
        assert program is not None
        program.model.metadata_props.update(metadata)
        path = Path(folder) / "network.onnx"
        program.save(path, external_data=False)
        checked = check_features(network, _Runtime(path), what="onnxruntime", pixels=pixels)
        file.write(path.read_bytes())
    return checked


class _Runtime:
    """The features of an ONNX file, as onnxruntime computes them."""

    def __init__(self, path: Path) -> None:
        runtime = import_module("onnxruntime")
        self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"pixels": pixels.numpy()})[0])
