"""The package's layout: unique names, files of a readable length, none for a single caller."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "vclr_lightning"
CONF = Path(__file__).parents[1] / "conf"
LONGEST = 250  # lines
SHORTEST = 60  # lines, with a single importer

# Short files with a single importer that stay, and why.
SHORT_BY_DESIGN = {
    **{f"commands/{p.name}": "loaded by name" for p in (SOURCE / "commands").glob("*.py")},
    "train.py": "an entry point",
    "cli.py": "an entry point",
    "functional/grad_cam.py": "a documented formula",
    "results/terminal.py": "one of the renderers of a result",
}

# Not met yet. Entries are only ever removed.
LONG = {
    "data/loading/datamodule.py",
    "evaluation/store.py",
    "stages/features/extractor.py",
}


@cache
def files() -> dict[str, tuple[int, ast.Module]]:
    """Return the number of lines and the syntax tree of each file."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        found[str(path.relative_to(SOURCE))] = len(text.splitlines()), ast.parse(text)
    return found


def imports(file: str, tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a file imports from the package, also inside functions."""
    package = ["vclr_lightning", *Path(file).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parents, node.module] if node.module else parents)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def configured() -> set[str]:
    """Return the dotted names that configurations use as `_target_` and the like."""
    words = " ".join(path.read_text() for path in CONF.rglob("*.yaml")).replace(",", " ").split()
    return {word.strip("\"'{}[]") for word in words if "vclr_lightning." in word}


def importers() -> dict[str, set[str]]:
    """Return the files and configurations that use each file, directly or through its package."""
    modules = {
        ".".join(["vclr_lightning", *Path(f).with_suffix("").parts]): f
        for f in files()
        if Path(f).name != "__init__.py"
    }
    exported: dict[str, str] = {}  # dotted name of what a package re-exports: the file it is in
    for file, (_, tree) in files().items():
        if Path(file).name == "__init__.py":
            package = ".".join(["vclr_lightning", *Path(file).parent.parts])
            for name in imports(file, tree):
                module, _, attribute = name.rpartition(".")
                if module in modules:
                    exported[f"{package}.{attribute}"] = modules[module]
    found: dict[str, set[str]] = defaultdict(set)
    names = [(f, n) for f, (_, tree) in files().items() for n in imports(f, tree)]
    names += [(f"conf: {name}", name) for name in configured()]
    for file, name in names:
        module = name.rpartition(".")[0]
        target = modules.get(name) or modules.get(module) or exported.get(name)
        if target is not None and target != file and Path(file).name != "__init__.py":
            found[target].add(file)
    return found


def twice(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_file_name_occurs_twice() -> None:
    names: dict[str, list[str]] = defaultdict(list)
    for file in files():
        if Path(file).name not in ("__init__.py", "stage.py"):
            names[Path(file).name].append(file)
    shared = twice(names)
    assert not shared


def test_no_class_name_occurs_twice() -> None:
    names: dict[str, list[str]] = defaultdict(list)
    for file, (_, tree) in files().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names[node.name.lstrip("_")].append(file)
    shared = twice(names)
    assert not shared


def test_no_file_is_long() -> None:
    long = {file: lines for file, (lines, _) in files().items() if lines > LONGEST}
    assert long.keys() <= LONG, {key: long[key] for key in long.keys() - LONG}


def test_no_short_file_has_a_single_importer() -> None:
    known = importers()
    short = {
        file: known[file]
        for file, (lines, _) in files().items()
        if lines < SHORTEST
        and len(known[file]) < 2
        and Path(file).name != "__init__.py"
        and file not in SHORT_BY_DESIGN
    }
    assert not short


def test_lightning_is_imported_in_one_place() -> None:
    """Which of its two packages, is decided in core/lightning.py."""
    packages = {"pytorch_lightning", "lightning", "lightning_fabric"}
    found = defaultdict(set)
    for file, (_, tree) in files().items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if packages & {name.partition(".")[0] for name in names}:
                found[file].add(node.lineno)
    assert found.keys() == {"core/lightning.py"}
    targets = " ".join(path.read_text() for path in CONF.rglob("*.yaml"))
    assert "pytorch_lightning" not in targets
