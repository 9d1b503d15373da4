"""The command: parse, run, and turn an error into one line and an exit code."""

import io
import os
import sys
from collections.abc import Sequence

from agent_service.cli.console import Console
from agent_service.cli.parser import build_parser
from agent_service.core.errors import AgentServiceError

__all__ = ["main"]

FAILED = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``agent-service`` command and return its exit code.

    0: done; 1: a comparison or check found a difference; 2: an error, reported in one line on stderr; 130: interrupted.

    :param argv: the arguments; None: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a title still gets a line
    try:
        arguments = build_parser().parse_args(argv)
        console = Console(as_json=arguments.json)
        try:
            code: int = arguments.run(arguments, console)
        except AgentServiceError as exc:
            console.failure(exc)
            return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; the interpreter must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code
