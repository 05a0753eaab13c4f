"""Damage files in many ways and read them: run as a command, so that a crash is seen.

    python damaged.py FOLDER SEED ROUNDS

Ends with status 1 where a damaged file is read as something else than what was written, or fails
otherwise than in a sentence.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.localization.snippet_files import read_snippets
from vclr_lightning.data.manifest import Info, Manifest, Row, Span, summarise, write_manifest
from vclr_lightning.evaluation.feature_journals import FeatureJournal, read_journals
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.evaluation.store_assembly import assemble
from vclr_lightning.models import TinyBackbone, export_backbone, load_backbone
from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.models.run_record import run_config

Case = tuple[str, list[Path], Callable[[], Any], bool]
COLUMNS = ("path", "name", "group", "split", "label", "duration", "exact", "codec", "size", "spans")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, overwrite, or move a part."""
    data, size = bytearray(content), len(content)
    start, other, length = rng.randrange(size), rng.randrange(size), 1 << rng.randrange(9)
    match rng.randrange(5):
        case 0:
            for _ in range(1 << rng.randrange(4)):
                data[rng.randrange(size)] ^= 1 << rng.randrange(8)
        case 1:
            del data[start:]
        case 2:
            data[start : start + length] = bytes(min(length, size - start))
        case 3:
            data[start : start + length] = data[other : other + length]
        case _:
            data[start : start + length] = b"\xff" * min(length, size - start)
    return bytes(data)


def manifest_of(folder: Path) -> Path:
    rows = [
        Row(path=f"run/{k}.mp4", label=k % 2, duration=2.5, exact=True, codec="h264", size=k)
        for k in range(12)
    ]
    rows += [Row(path="a.mp4", start=0.5, end=2.0), Row(path="b.mp4", spans=(Span(0.1, 1.0, 1),))]
    return write_manifest(folder / "m.arrow", rows, Info(root=folder, classes=("run", "walk")))


def values_of(file: Path) -> Any:
    manifest = Manifest.load(file)
    rows = [[manifest.value(name, i) for name in COLUMNS] for i in range(len(manifest))]
    columns = [manifest.column(name).tolist() for name in COLUMNS]
    return repr((manifest.info, rows, columns, summarise(manifest), manifest.splits))


def without_checksum(file: Path, target: Path) -> Path:
    """Copy a manifest as earlier versions wrote it."""
    batch = pa.ipc.open_file(file.read_bytes()).get_batch(0)
    kept = {k: v for k, v in batch.schema.metadata.items() if k != b"vclr_checksum"}
    batch = batch.replace_schema_metadata(kept)
    with target.open("wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return target


def store_of(folder: Path) -> Path:
    journal = FeatureJournal(folder / "work")
    facts = {n: torch.arange(3) for n in ("label", "video_id", "group_id", "index")}
    batch: Any = {"mask": torch.ones(3, 2), "rejected": [], **facts}
    journal.add((0, 1, 2), batch, list(torch.rand(3, 1, 4)))
    journal.close()
    assemble(
        list(read_journals(folder / "work").values()),
        work=folder / "work",
        target=folder / "store",
        form="mean",
        frames=2,
        names=list("abc"),
        paths=list("abc"),
        classes=list("xyz"),
        provenance={"weights": "w"},
    )
    return folder / "store"


def features_of(folder: Path) -> Any:
    store = FeatureStore.open(folder)
    facts = store.label.tolist(), store.names, store.paths, store.classes, store.rejected
    return repr((store.features.tolist(), facts, store.provenance, store.form))


def weights_of(folder: Path) -> list[Path]:
    """Write a checkpoint, in the form of today and that before, and an export."""
    net = TinyBackbone(width=4, stages=1)
    content = {
        "state_dict": {f"query_encoder.{name}": t for name, t in net.state_dict().items()},
        "metadata": {"config": {"image_size": 32}, "backbone": net.spec},
    }
    torch.save(content, folder / "last.ckpt")
    torch.save(content, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    export_backbone(net, folder / "b.safetensors")
    return [folder / name for name in ("last.ckpt", "b.safetensors", "old.ckpt")]


def numbers_of(file: Path) -> Any:
    checkpoint = read_checkpoint(file)
    tensors = {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()}
    weights = load_backbone(file).state_dict()
    return repr((tensors, checkpoint.spec, weights.keys(), run_config(file)))


def cases(folder: Path) -> Iterator[Case]:
    """Yield a name, the files to damage, what reads them, and whether all damage is noticed."""
    manifest = manifest_of(folder)
    yield "manifest", [manifest], lambda: values_of(manifest), True
    older = without_checksum(manifest, folder / "older.arrow")
    yield "older manifest", [older], lambda: values_of(older), False
    store = store_of(folder)
    *sealed, old = weights_of(folder)
    yield "checkpoint", sealed[:1], lambda: numbers_of(sealed[0]), True
    yield "export", sealed[1:], lambda: numbers_of(sealed[1]), True
    yield "old checkpoint", [old], lambda: numbers_of(old), False
    np.save(folder / "a.npy", np.arange(12.0).reshape(3, 4))
    yield "array", [folder / "a.npy"], lambda: read_snippets(folder / "a.npy").tolist(), False
    yield "features", sorted(store.iterdir()), lambda: features_of(store), True


def main(folder: Path, seed: int, rounds: int) -> int:
    wrong = 0
    torch.manual_seed(seed)
    for name, files, read, noticed in cases(folder):
        good, contents = read(), [file.read_bytes() for file in files]
        for number in range(rounds):
            rng = random.Random(f"{seed} {name} {number}")
            which = rng.randrange(len(files))
            files[which].write_bytes(damaged(contents[which], rng))
            print(name, files[which].name, number, flush=True)  # the last line before a crash
            try:
                other = read() != good
            except UserError:
                other = False
            except Exception as error:
                print(f"WRONG: {type(error).__name__}: {error}")
                wrong += 1
            else:
                if other and noticed:
                    print("WRONG: other content")
                    wrong += 1
            files[which].write_bytes(contents[which])
    return min(wrong, 1)


if __name__ == "__main__":
    np.seterr(all="ignore")  # numbers of older manifests may be anything
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
