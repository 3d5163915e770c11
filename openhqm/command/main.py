# -*- test-case-name: tests.command.test_main -*-
"""The command line ``openhqm``: serve, check, the schema of the configuration, dead letters, and the file of keys.

Exit codes: 0 it is done; 1 it could not be done; 2 the command line or the configuration is wrong; 3 the process does
not answer; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TextIO

from openhqm import __version__
from openhqm.command.addresses import default_url
from openhqm.command.dead import add_dead, run_dead
from openhqm.command.keys import add_keys, run_keys
from openhqm.command.server import NotReached, Refused, Server
from openhqm.command.text import printable
from openhqm.errors import ConfigurationError
from openhqm.options import ROLES, did_you_mean
from openhqm.runtime.printing import discard

DONE, FAILED, WRONG, NOT_REACHED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = """exit codes: 0 done; 1 it could not be done; 2 the command line or the configuration is wrong;
3 the process does not answer; 130 interrupted"""


def run() -> None:
    """What the console script calls."""
    sys.exit(main(sys.argv[1:], os.environ, sys.stdout, sys.stderr))


def main(arguments: Sequence[str], environment: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Carry out the command line ``arguments``, and return the exit code. ``serve`` and ``check`` do not return."""
    try:
        asked = parser().parse_args(arguments)
    except SystemExit as ended:
        for line in _meant(arguments) if ended.code else ():
            print(f"openhqm: {line}", file=err)
        return ended.code if isinstance(ended.code, int) else WRONG
    if asked.command not in ("config", "dead", "keys"):
        twistd(asked)
    say, tell = partial(print, file=out), partial(print, file=err)
    try:
        if asked.command == "config":
            code = print_schema(say)
        elif asked.command == "keys":
            code = run_keys(asked, say, tell, time.time())
        else:
            url = asked.url or default_url(asked.config, environment)
            code = run_dead(asked, Server(url, environment.get("OHQM_KEY")), say, tell, time)
        out.flush()
        return code
    except ConfigurationError as error:
        lines, code = [str(complaint) for complaint in error.complaints], WRONG
    except NotReached as error:
        lines, code = [str(error)], NOT_REACHED
    except Refused as error:
        lines, code = [str(error)], FAILED
    except ValueError as error:
        lines, code = [str(error)], WRONG
    except BrokenPipeError:
        discard(out)
        return FAILED
    except KeyboardInterrupt:
        lines, code = (
            ["interrupted. What was printed is done, and maybe a little more; the same command does the rest"],
            INTERRUPTED,
        )
    for line in lines:
        print(f"openhqm: {printable(line)}", file=err)
    return code


def _meant(arguments: Sequence[str]) -> Sequence[str]:
    """What a command line that cannot be read may have meant: a key of the configuration, or ``serve``."""
    options = [each[2:].partition("=")[0] for each in arguments if each.startswith("--")]
    found = [meant for option in options if (meant := did_you_mean(option))]
    return [*found, *(["Did you mean openhqm serve?"] if {"start", "run"} & set(arguments[:2]) else [])]


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    root = argparse.ArgumentParser(
        prog="openhqm",
        description="A durable queue between HTTP callers and the code or service that answers them.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"openhqm {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("serve", "run a process in the foreground, like twistd -n openhqm"),
        ("check", "check the configuration, connect, and print what the backend promises"),
    ):
        command = commands.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
        command.add_argument("-c", "--config", metavar="FILE", help="YAML file; OPENHQM_* variables override it")
        command.add_argument("-r", "--role", choices=ROLES, default="all", help="the part of the work it does")
        if name == "serve":
            command.add_argument("--watch", metavar="DIR", help="what SIGHUP does, whenever a file in DIR changes")
    add_config(commands)
    add_dead(commands)
    add_keys(commands)
    return root


def add_config(commands: Any) -> None:
    """Add ``config`` and its action to the subcommands of a parser."""
    config = commands.add_parser("config", help="what a configuration file may have", allow_abbrev=False)
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "print the JSON Schema of the file, for editors"
    actions.add_parser("schema", help=summary, description=f"{summary}.", allow_abbrev=False)


def print_schema(out: Callable[[str], object]) -> int:
    """Print the JSON Schema of a configuration file."""
    from openhqm.backends import PRODUCTS
    from openhqm.config.json_schema import json_schema
    from openhqm.config.records import settings_record

    out(json.dumps(json_schema(settings_record(PRODUCTS)), indent=2))
    return DONE


def twistd(asked: argparse.Namespace) -> None:
    """Become ``twistd -n openhqm``: one way to run a process, whatever starts it. It ends with `SystemExit`."""
    from twisted.scripts.twistd import run as run_twistd  # it imports half of Twisted

    arguments = ["--role", asked.role]
    if asked.config is not None:
        arguments += ["--config", asked.config]
    if asked.command == "check":
        arguments.append("--check")
    elif asked.watch is not None:
        arguments += ["--watch", asked.watch]
    sys.argv = ["twistd", "-n", "openhqm", *arguments]
    run_twistd()
    raise SystemExit(0)
