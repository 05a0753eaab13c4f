"""Pages that `mkdocs` makes from the source: configuration reference, API reference, formulas."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vclr_lightning"
CONF = ROOT / "conf"

# Layers of the reference, from what is imported first. Packages without `__all__` name modules.
LAYERS = {
    "Modules and callbacks": ("modules", "callbacks", "loggers"),
    "Objectives": ("objectives",),
    "Mathematics": ("functional",),
    "Networks": ("models",),
    "Data": (
        *("data/protocols.py", "data/loading", "data/indexing", "data/manifest", "data/readers"),
        *("data/sampling", "data/transforms", "data/datasets", "data/localization"),
        *("data/prepare", "data/shards", "data/synthetic", "data/doctor"),
    ),
    "Evaluation": ("evaluation",),
    "Measurement": ("bench",),
    "Core": (
        *("core/types.py", "core/errors.py", "core/lightning.py", "core/momentum.py"),
        *("core/queue.py", "core/memory_bank.py", "core/schedules.py", "core/distributed.py"),
        *("core/random.py", "core/files.py"),
    ),
}
# In the order in which a user meets them; the others follow.
GROUPS = (
    "data",
    "backbone",
    "objective",
    "optim",
    "trainer",
    "callbacks",
    "watch",
    "logger",
    "stage",
)
_KEY = re.compile(r"^(\s*)(- )?([\w.@/-]+|\"[^\"]+\"):(?:\s+(.*?))?\s*$")
_INLINE = re.compile(r"(?:^|\s)#\s+(.*)$")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Render ```math blocks, and put the generated pages into the navigation."""
    fences = [{"name": "math", "class": "formula", "format": _formula}]
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = fences
    pages = {"Configuration reference": _configuration(), "API reference": _api()}
    for entry in config.nav or []:
        for title, made in pages.items():
            if title in entry:
                entry[title] = [{name: path} for path, (name, _) in made.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for made in (_configuration(), _api()):
        for path, (_, content) in made.items():
            files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Turn roles of docstrings, such as :class:`~package.module.Name`, into links."""

    def link(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = name.rpartition(".")[2] if short else name
        return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'

    return re.sub(r":(?:class|func|meth|mod|attr|data):<code>(~?)\.?([\w.]+)</code>", link, html)


def _formula(source: str, *_: Any, **__: Any) -> str:
    """Return LaTeX as MathML, which browsers draw without a script."""
    lines = [convert(line, display="block") for line in source.split("\n\n") if line.strip()]
    return '<div class="formula">' + "".join(lines) + "</div>"


@cache
def _api() -> dict[str, tuple[str, str]]:
    """Pages of the layers by path: title and content."""
    pages = {}
    for title, parts in LAYERS.items():
        lines = [f"# {title}"]
        for part in parts:
            found = list(_public(SOURCE / part))
            if not found:
                continue
            lines += ["", f"## {'.'.join(('vclr_lightning', *Path(part).with_suffix('').parts))}"]
            for name in found:
                lines += ["", f"::: {name}"]
        pages[f"api/{title.lower().replace(' ', '-')}.md"] = title, "\n".join(lines) + "\n"
    return pages


def _public(path: Path) -> Iterator[str]:
    """Yield the dotted names of a module's, or a package's, public classes and functions."""
    files = [path] if path.suffix else sorted(path.rglob("*.py"))
    exported = set()
    if not path.suffix:
        for node in ast.walk(ast.parse((path / "__init__.py").read_text())):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(getattr(target, "id", "") == "__all__" for target in targets):
                    strings = ast.walk(node.value) if node.value else ()
                    exported = {n.value for n in strings if isinstance(n, ast.Constant)}
    for file in files:
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name[0] == "_":
                continue
            if ast.get_docstring(node) and (not exported or node.name in exported):
                yield f"{module.removesuffix('.__init__')}.{node.name}"


@cache
def _configuration() -> dict[str, tuple[str, str]]:
    """Pages of the configuration's groups by path: title and content."""
    main = (CONF / "config.yaml").read_text()
    groups = {path.name for path in CONF.iterdir() if any(path.rglob("*.yaml"))}
    pages = {}
    for group in ["config", *GROUPS, *sorted(groups - {*GROUPS})]:
        where, title = CONF / group, group
        files = sorted(where.rglob("*.yaml"))
        intro = f"`{group}=NAME` chooses one of these files; `{group}.KEY=VALUE` changes a value."
        if group == "config":
            files, title = [CONF / "config.yaml"], "Every run"
            intro = "Values that every run has; `KEY=VALUE` changes one."
        elif f"- {group}: " not in main:
            intro = f"`+{group}=NAME` adds one of these files to a command."
        lines = [f"# {title}", "", intro]
        for file in files:
            name = file.relative_to(where).with_suffix("").as_posix() if group != "config" else ""
            lines += ["", *([f"## {name}", ""] if name else []), *_described(file.read_text())]
        pages[f"configuration/{group}.md"] = title, "\n".join(lines) + "\n"
    return pages


def _described(text: str) -> list[str]:
    """Return a YAML file as Markdown: its opening comment, then a table of its keys."""
    head, rest, commands = [], [], []
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        line = lines.pop(0)
        if line.startswith("# @package"):
            continue
        if line.startswith("#   "):
            commands.append(line[4:])
        else:
            (rest if commands else head).append(line.lstrip("# "))
    result = [" ".join(head)]
    if commands:
        result += ["", "```bash", *commands, "```"]
    if rest:
        result += ["", " ".join(rest)]
    rows = list(_rows(lines))
    if rows:
        result += ["", "| key | default | |", "| --- | --- | --- |"]
        result += [f"| {key} | {default} | {words} |" for key, default, words in rows]
    return result


def _code(text: str) -> str:
    """Return code that may break after dots."""
    shown = re.sub(r"[|_*`\[\]]", lambda found: f"&#{ord(found[0])};", escape(text))
    shown = shown.replace(".", ".<wbr>")
    return f"<code>{shown}</code>" if text else ""


def _rows(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and description; a comment of its own line belongs to the next key."""
    parents: list[tuple[int, str]] = []
    before: list[str] = []
    in_defaults = False
    for line in lines:
        if line.lstrip().startswith("#"):
            before.append(line.lstrip("# "))
            continue
        comment = _INLINE.search(line)
        match = _KEY.match(line[: comment.start()] if comment else line)
        if not match or match[2]:
            before = []
            continue
        indent, key, value = len(match[1]), match[3], match[4] or ""
        in_defaults = key == "defaults" if indent == 0 else in_defaults
        parents = [p for p in parents if p[0] < indent]
        path = ".".join([*(name for _, name in parents), key])
        if not value:
            parents.append((indent, key))
        words = " ".join([*before, *([comment[1]] if comment else [])]).replace("|", "\\|")
        before = []
        if in_defaults or not (value or words) or key in ("_partial_", "_recursive_", "_convert_"):
            continue
        if key == "_target_":  # the class, whose arguments the keys beside it are
            value = value.rpartition(".")[2]
        yield _code(path), _code(value), words
