"""``agent-service completion``: a script that lets a shell complete the command."""

from argparse import Namespace
from typing import Any

from agent_service.cli.console import Console
from agent_service.cli.grammar import add_command
from agent_service.core.errors import ConfigurationError

__all__ = ["register"]


def register(commands: Any) -> None:
    """Add ``completion``."""
    parser = add_command(
        commands,
        "completion",
        _completion,
        "print a script that lets a shell complete commands and options",
        "completion bash",
        for_machines=False,
    )
    parser.add_argument(
        "shell", choices=("bash", "zsh", "tcsh"), help="the shell; load the script in its start-up file"
    )


def _completion(arguments: Namespace, console: Console) -> int:
    try:
        import shtab  # noqa: PLC0415 - comes with the "cli" extra
    except ImportError as exc:
        raise ConfigurationError("completion needs shtab: pip install 'agent-service[cli]'") from exc
    console.say(shtab.complete(arguments.parser, shell=arguments.shell))
    return 0
