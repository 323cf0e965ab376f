"""The command line: parse, call, print. Exit code 0, 1 for findings of ``check``, or 2 for bad input."""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from jsonargparse import ArgumentParser

from audiostride import __version__
from audiostride.errors import BAD_INPUT, InputError, explain, reason_of
from audiostride.wording import escape

# Module and one line of help of each command. Only the module of the command that is given is loaded: checking and
# preparing data need no torch, which takes a second and 450 MiB.
COMMANDS = {
    "demo": ("demo", "make sounds with known modulations, learn them, show whether the cut-offs follow"),
    "import": ("importing", "write the manifest of a known data set, class folders, or annotated recordings"),
    "check": ("checking", "look for what is wrong with a manifest and its audio"),
    "modulations": ("modulations", "draw which rates and densities the sounds of each class hold"),
    "prepare": ("preparing", "decode the clips of a manifest once, into a store that is read at full speed"),
    "train": ("train", "train a classifier and report on its test clips"),
    "evaluate": ("evaluate", "evaluate the best model of a run"),
    "predict": ("predict", "classify recordings of any length"),
    "listen": ("listen", "classify a stream as it comes: samples of a pipe, or the sound card"),
    "embed": ("embed", "write what the heads of a model see in recordings: features for other programs"),
    "report": ("report", "write the cut-offs and the HTML page of one or several runs"),
    "export": ("exporting", "write a classifier as one file for other programs: ONNX or torch.export"),
    "doctor": ("doctor", "look over the installation and the machine, and test both"),
}


def build_parser(command: str) -> ArgumentParser:
    """The parser of a command's options."""
    parser: ArgumentParser = import_module(f"audiostride.commands.{COMMANDS[command][0]}").build_parser()
    parser.prog = f"audiostride {command}"
    parser.exit_on_error = False  # `main` says what is wrong, in one line
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the return value is the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show are shown escaped
            stream.reconfigure(errors="backslashreplace")
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0 if given else BAD_INPUT
    if given[0] == "--version":
        print(f"audiostride {__version__}")
        return 0
    command, *rest = given
    try:
        try:
            os.getcwd()
        except FileNotFoundError as error:  # torch would end the process
            raise InputError("the working folder must exist, but it was removed; change into another one") from error
        if command not in COMMANDS:
            near = get_close_matches(command, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(COMMANDS)}"
            raise InputError(f"there is no command {command!r}; {hint}")
        parsed = build_parser(command).parse_args(_with_saved_settings(command, rest))
        code: int = import_module(f"audiostride.commands.{COMMANDS[command][0]}").run(parsed)
        return code
    except InputError as error:
        message = str(error)
    except argparse.ArgumentError as error:
        message = f"{command}: {_what_is_wrong(command, reason_of(error))}"
    except RuntimeError as error:
        # Torch tells of a worker that died from a signal's handler, also while its failure is on the way here.
        if not isinstance(error.__context__, InputError):
            raise
        message = str(error.__context__)
    except KeyboardInterrupt:
        print("audiostride: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough.
        sys.stderr.close()
        return 0
    except (OSError, UnicodeError, MemoryError) as error:
        message = str(explain(error))
    # Control characters in names would move the cursor, or hide what is wrong.
    print("audiostride:", escape(message, keep="\n"), file=sys.stderr)
    return BAD_INPUT


def _what_is_wrong(command: str, said: str) -> str:
    """What a parser says of options that are not right, and what to do about it."""
    if found := re.search(r'Parser key "(\w+)": .*?(?:Got value|Given value): (\S+)$', said):
        from audiostride.commands.train import describe_option  # which has nearly all of them

        for option in build_parser(command)._actions:
            if option.dest == found[1]:
                return f"{option.option_strings[0]} must be {describe_option(option)}, got {found[2]}"
    return f"{said}; {_way_out(command, said)}"


def _way_out(command: str, said: str) -> str:
    """What to do about options that are not right: the one that is like a misspelt one, or where they are listed."""
    if found := re.search(r"unrecognized arguments: (--[^\s=]+)", said):
        known = [name for action in build_parser(command)._actions for name in action.option_strings]
        if near := get_close_matches(found[1], [name for name in known if not name.endswith("+")], n=1):
            return f"did you mean {near[0]}?"
    return f"audiostride {command} --help lists the options"


def overview() -> str:
    """What ``audiostride --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    head = "usage: audiostride COMMAND ...\n\nTrain audio classifiers whose layers learn how much to downsample.\n"
    return "\n".join([head, *lines, "\naudiostride COMMAND --help lists the options of a command."])


def _with_saved_settings(command: str, given: list[str]) -> list[str]:
    """For ``train --resume``, the arguments with the settings of the run put in front."""
    if command != "train" or "--resume" not in given:
        return given
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--out")
    out = finder.parse_known_args(given)[0].out
    if out is None or not (Path(out) / "config.yaml").is_file():
        return given
    from audiostride.training.config import TrainConfig  # which other commands need not wait for

    # All of them, so that what a run of before does not know is as it was then. The last value given wins: the run
    # stays where it is even if it was moved.
    return ["--config", json.dumps(TrainConfig.load(out).to_dict()), *given]
