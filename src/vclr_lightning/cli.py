"""``vclr``: the tools around training. A command's module is imported only when it is called."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from vclr_lightning import __version__
from vclr_lightning.app.ending import run_reported
from vclr_lightning.core.errors import UserError

COMMANDS = {
    "index": "list a folder of videos in a manifest, which training reads",
    "doctor": "find videos that are broken, doubled, leaking between splits, or odd",
    "prepare": "re-encode videos once, so that training reads them fast",
    "shard": "store videos in a few large files, for object stores and network disks",
    "plan": "say what a run will take: time, memory, workers, disk",
    "bench": "measure where the time of training goes, and what would help",
    "show": "show what a manifest holds",
    "synth": "make labelled synthetic videos",
    "predict": "classes, nearest neighbours or features of new videos",
    "convert": "take the backbone out of a checkpoint, for this package or another",
    "report": "write a page about a run, or about several side by side",
}
"""What each module of ``vclr_lightning.commands`` does by its ``add_arguments`` and ``run``."""


class _Parser(argparse.ArgumentParser):
    """Raises a ``UserError`` instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


class _Completion(argparse.Action):
    """Prints a script by which a shell completes commands, options and files."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: Any, *__: object) -> None:
        import shtab

        complete: Any = build_parser(*COMMANDS)
        (commands,) = (a.choices for a in complete._actions if a.dest == "command")
        for action in (a for command in commands.values() for a in command._actions):
            if action.type is Path:
                action.complete = shtab.FILE
        print(shtab.complete(complete, shell=shell))
        parser.exit()


def build_parser(*filled: str) -> argparse.ArgumentParser:
    """Return the parser of ``vclr``; only the commands ``filled`` get their arguments.

    Example:
        >>> str(build_parser("show").parse_args(["show", "k400.arrow"]).manifest)
        'k400.arrow'
    """
    parser = _Parser(
        prog="vclr",
        description="Video-level contrastive learning: the tools around training.",
        epilog="`vclr COMMAND --help` describes each.",
    )
    parser.add_argument("--version", action="version", version=f"vclr_lightning {__version__}")
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=["bash", "zsh", "tcsh"],
        help="print the completion script of a shell",
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        if name not in filled:
            commands.add_parser(name, help=text)
            continue
        module = import_module(f"vclr_lightning.commands.{name}")
        chosen = commands.add_parser(
            name,
            help=text,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(chosen)
        chosen.set_defaults(run=module.run)
    return parser


def _dispatch(arguments: Sequence[str]) -> int:
    command = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if command is not None and command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(COMMANDS)}"
        raise UserError(f"there is no command {command!r}; {hint}")
    parser = build_parser(*[command] if command else [])
    chosen, rest = parser.parse_known_args(arguments)
    # argparse takes positional arguments from one place only: `vclr bench a=1 --seconds 5 b=2`.
    if hasattr(chosen, "overrides") and all(word[0] != "-" and "=" in word for word in rest):
        chosen.overrides += rest
    elif hasattr(chosen, "words") and all(word[0] != "-" for word in rest):
        chosen.words += rest
    elif rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)}; see `vclr {command} --help`")
    if command is None:
        parser.print_help()
        return 0
    return chosen.run(chosen) or 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vclr``; return 0, 1 (fault of code, or what the command says), 2 (user's mistake), or
    128 + signal."""
    return run_reported(lambda: _dispatch(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
