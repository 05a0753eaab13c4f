"""A study's folder in a repository: commands, what was found at each scale, and findings."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from vclr_lightning.app.studies import SCALES, SUSTAINED, Study, study
from vclr_lightning.app.study_differences import found_values
from vclr_lightning.app.study_results import (
    as_markdown,
    study_result,
    write_study,
    write_text,
)
from vclr_lightning.core.reading import read_json

_FINDINGS = "## Findings"
_TITLES = {"small": "Two cores", "paper": "The paper's scale"}


def record_study(
    of: Study, given: Sequence[str], folder: Path, *, options: Path | None = None
) -> None:
    """Write README.md, and JSON and SVG of this scale where anything has been measured.

    What a README has from the heading ``## Findings`` on is kept, and so is the other scale's part.

    Args:
        of: at one scale.
        given: the user's words for its commands.
        folder: such as ``experiments/NAME``.
        options: folder of the user's configurations.
    """
    result = write_study(of)
    if any(found_values(of).values()):
        content = read_json(of.folder / "study.json")
        shown = _pictures(of, folder)
        content |= {"words": list(given), "text": "\n\n".join([as_markdown(result), *shown])}
        write_text(folder / f"{of.scale}.json", json.dumps(content, indent=1) + "\n")
        write_text(folder / f"{of.scale}.svg", (of.folder / "study.svg").read_text())
    file = folder / "README.md"
    before = file.read_text() if file.is_file() else ""
    _, heading, findings = before.partition(f"\n{_FINDINGS}")
    text = f"# {of.title}\n\n{of.paper} of the paper. {of.question}\n"
    for scale in SCALES:
        one = of if scale == of.scale else study(of.name, scale, folder=options)
        text += f"\n## {_TITLES[scale]}\n\n{_part(one, folder)}"
    write_text(file, f"{text}{heading}{findings}")


def _pictures(of: Study, folder: Path) -> list[str]:
    """Copy the pictures of the first seed, and return the lines that show them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for title, pattern in of.pictures.items():
        lines.append(f"**{title.capitalize()}.**")
        for arm in of.arms:
            cell = of.cell_folder(arm, of.seeds[0])
            for number, file in enumerate(sorted(cell.glob(pattern))):
                name = f"{of.scale}-{arm}-{title}{number or ''}{file.suffix}"
                shutil.copyfile(file, folder / name)
                lines.append(f"{arm}, seed {of.seeds[0]}:\n\n![{title}, {arm}]({name})")
    return lines


def _part(one: Study, folder: Path) -> str:
    """Return the part of a scale: command, cost, what was found."""
    file = folder / f"{one.scale}.json"
    recorded = read_json(file) if file.is_file() else None
    words = [] if one.scale == SCALES[0] else [f"scale={one.scale}"]
    words += [f"paths.{name}=/{name}" for name, default in one.paths.items() if default is None]
    words += recorded["words"] if recorded else []
    command = shlex.join(["python", "-m", "vclr_lightning.study", one.name, *words])
    parts = [f"```bash\n{command}\n```", _cost(one)]
    if recorded:
        about = (
            f"vclr_lightning {recorded['version']}; all numbers are in [{file.name}]({file.name})."
        )
        parts += [about, recorded["text"].strip(), f"![by arm]({one.scale}.svg)"]
    else:
        parts.append(as_markdown(study_result(one)).strip())
    return "\n\n".join(filter(None, parts)) + "\n"


def _cost(one: Study) -> str:
    """Say what the training takes, an estimate."""
    hours = {arm: h for arm in one.arms if (h := one.gpu_hours(arm)) is not None}
    if not hours:
        return ""
    each = ", ".join(f"{arm} {h:.2g}" for arm, h in hours.items())
    total = sum(hours.values()) * len(one.seeds)
    return (
        f"Estimated GPU hours of one training: {each}; of all {len(one.seeds)} seeds {total:.3g}. "
        f"Computed from the operations of a step for a device that sustains {SUSTAINED:g} TFLOP/s, "
        "not measured; reading the videos and the evaluations come on top."
    )
