"""What is wrong with a set of videos, from what was found in each of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vclr_lightning.data.doctor.subject import Finding, Subject

_BLACK = 10.0  # luminance, 0 to 255
_PLAIN = 3.0  # standard deviation of a picture of one colour
_GREY = 2.0  # distance between channels that coding leaves in a picture without colour
_STATIC = 4.0  # change in a 1024th of the picture; coding makes up to 3
_UNEVEN = 0.02  # share of the distances between frames
_USUAL = 3  # segments of the paper
_BALANCED = 10  # times as many videos in the largest class as in the smallest


def all_findings(subject: Subject) -> list[Finding]:
    """Return the findings that there are, those that hurt first."""
    found = [
        *(_broken(subject), _groups(subject), *_copies(subject)),
        *_pictures(subject),
        *_times(subject),
        *(_short(subject), _changed(subject), _classes(subject)),
    ]
    return sorted((one for one in found if one.videos), key=lambda one: not one.hurts)


def _broken(subject: Subject) -> Finding:
    lost = [(one.path, one.reason) for one in subject.rejected if one.lost]
    lost += [(one.path, one.reason) for one in subject.results if one.reason]
    return Finding(
        name="broken",
        title="cannot be read",
        hurts=True,
        videos=lost,
        advice="Fetch these files again, or leave them out; training replaces them by others.",
    )


def _groups(subject: Subject) -> Finding:
    """Groups that more than one split has videos of."""
    manifest = subject.manifest
    splits, words = manifest.words("split"), manifest.words("group")
    pairs = np.stack([manifest.group_ids, manifest.column("split").astype(np.int64)], 1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    codes, times = np.unique(kinds[:, 0], return_counts=True)
    shared = np.isin(kinds[:, 0], codes[times > 1])
    found: dict[int, list[str]] = defaultdict(list)
    for (group, split), count in zip(kinds[shared].tolist(), counts[shared].tolist(), strict=True):
        found[group].append(f"{splits[split]} {count:,}")
    return Finding(
        name="leaking_groups",
        title="are groups (sources) with videos in several splits",
        hurts=True,
        videos=[(words[code], ", ".join(parts)) for code, parts in found.items()],
        advice="Split by whole groups: what is measured on such videos is too good.",
    )


def _copies(subject: Subject) -> Iterator[Finding]:
    """Copies across splits, of different classes, and within one split."""
    manifest, rows_of = subject.manifest, subject.rows_of()
    splits, codes = manifest.words("split"), manifest.column("split")
    labels = manifest.labels
    leaking, contradicting, others = [], [], []
    for one in subject.alike:
        rows = [rows_of[file] for file in one.members]
        kind = "equal files" if one.exact else "the same pictures"
        within = [sorted({splits[codes[row]] for row in of_file}) for of_file in rows]
        paths = "\n".join(subject.results[file].path for file in one.members)
        if len({name for names in within for name in names}) > 1:
            leaking.append((paths, f"{kind}: {', '.join('/'.join(names) for names in within)}"))
        else:
            others.append((paths, kind))
        named = {int(labels[row]) for of_file in rows for row in of_file} - {-1}
        # Several clips of one file may well be of several classes.
        if len(named) > 1 and all(len(of_file) == 1 for of_file in rows):
            names = ", ".join(manifest.classes[label] for label in sorted(named))
            contradicting.append((paths, f"{kind}: {names}"))
    for name, title, hurts, videos, advice in (
        (
            *("leaking_copies", "are sets of copies in several splits", True, leaking),
            "Keep one of each set: what is measured on a copy of a training video is too good.",
        ),
        (
            *("contradicting_labels", "are sets of copies of different classes", True),
            *(contradicting, "Find out which class is right, and keep that video."),
        ),
        (
            *("copies", "are sets of copies within one split", False, others),
            "Keep one of each set: in a batch or queue, copies are each other's negatives; and a "
            "share that is held out may separate them.",
        ),
    ):
        yield Finding(name=name, title=title, hurts=hurts, videos=videos, advice=advice)


def _pictures(subject: Subject) -> Iterator[Finding]:
    """Black, plain, static and grey videos, each counted once."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for result in subject.results:
        values = result.values
        if values is None:
            continue
        light, spread, colour = values["light"], values["spread"], values["colour"]
        if max(light) < _BLACK:
            found["black"].append((result.path, f"luminance {max(light):.0f} of 255"))
        elif max(spread) < _PLAIN:
            found["plain"].append((result.path, f"luminance {np.mean(light):.0f} of 255"))
        elif values["motion"] < _STATIC and values["num_frames"] > 1:
            found["static"].append((result.path, f"{values['num_frames']:,} frames"))
        elif max(colour) < _GREY:
            found["grey"].append((result.path, ""))
    for name, title, advice in (
        ("black", "are black", "Leave them out: there is nothing to learn from them."),
        ("plain", "show one colour alone", "Leave them out: there is nothing to learn from them."),
        ("static", "show one still picture", "Nothing of time can be learned from them."),
        ("grey", "have no colour", "They stand out by that alone where others have colour."),
    ):
        yield Finding(name=name, title=title, hurts=False, videos=found[name], advice=advice)


def _times(subject: Subject) -> Iterator[Finding]:
    """Variable and unusual frame rates, and promises that do not hold."""
    variable, promised = [], []
    for result in subject.results:
        values: Mapping[str, Any] = result.values or {}
        uneven = values.get("uneven") or 0.0
        if uneven >= _UNEVEN and uneven * values["num_frames"] > 2:
            variable.append((result.path, f"{uneven:.0%} of the distances are uneven"))
        if values.get("promised"):
            detail = f"{values['promised']:,} promised, {values['num_frames']:,} decode"
            promised.append((result.path, detail))
    rates = subject.manifest.column("fps").astype(np.float64)
    middle = float(np.nanmedian(rates)) if not np.isnan(rates).all() else np.nan
    odd = np.flatnonzero((rates < middle / 2) | (rates > 2 * middle))
    path = subject.manifest.relative_path
    unusual = dict.fromkeys((path(int(i)), f"{rates[i]:.4g} per second") for i in odd)
    even = "frame_rate=... reads clips by time."
    yield Finding(
        name="variable_rate",
        title="have a variable frame rate",
        hurts=False,
        videos=variable,
        advice=f"Strides of frames are not strides of time in them. {even}",
    )
    yield Finding(
        name="odd_rate",
        title=f"are far from the usual {middle:.4g} frames per second",
        hurts=False,
        videos=list(unusual),
        advice=f"Clips of equal strides span other times in them. {even}",
    )
    yield Finding(
        name="frame_count",
        title="promise another number of frames than decode",
        hurts=False,
        videos=promised,
        advice="They are read, but from their start; vclr prepare writes true headers.",
    )


def _short(subject: Subject) -> Finding:
    counts, path = subject.frames(), subject.manifest.relative_path
    rows = np.flatnonzero(counts < _USUAL).tolist()
    return Finding(
        name="short",
        title=f"have fewer than {_USUAL} frames, one for each of {_USUAL} segments",
        hurts=False,
        videos=[
            (path(i), "1 frame" if counts[i] == 1 else f"{counts[i]:.0f} frames") for i in rows
        ],
        advice="Leave them out: their segments repeat frames.",
    )


def _changed(subject: Subject) -> Finding:
    manifest = subject.manifest
    sizes, times = manifest.column("size"), manifest.column("mtime_ns")
    _, first = np.unique(subject.file_of, return_index=True)
    changed = [
        (one.path, "another size" if one.size != sizes[row] else "another time")
        for one, row in zip(subject.results, first.tolist(), strict=True)
        if one.size >= 0 and (one.size, one.mtime_ns) != (sizes[row], times[row])
    ]
    return Finding(
        name="changed",
        title="have changed since they were indexed",
        hurts=False,
        videos=[] if manifest.info.frames else changed,
        advice="Run vclr index again; it opens only these.",
    )


def _classes(subject: Subject) -> Finding:
    """The smallest classes, where the largest has ten times as many videos."""
    manifest = subject.manifest
    counts = Counter(manifest.labels[manifest.labels >= 0].tolist())
    most = max(counts.values(), default=0)
    small = [(manifest.classes[k], n) for k, n in counts.items() if n * _BALANCED <= most]
    return Finding(
        name="imbalance",
        title=f"are classes with a {_BALANCED}th of the videos of the largest, or fewer",
        hurts=False,
        videos=[(name, f"{n:,} of {most:,}") for name, n in sorted(small, key=lambda c: c[1])],
        advice="Look at the mean over classes beside the accuracy.",
    )
