"""What the command shows: results on stdout, progress on stderr; JSON for machines, plain lines or bars for people."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Console", "printable"]

LABEL_WIDTH = 28


class Console:
    """Shows text to a person, or one JSON object to a machine.

    :param as_json: suppress everything but the JSON of :meth:`result`.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def say(self, text: str = "") -> None:
        """Show a line to a person."""
        if not self.as_json:
            _write(text)

    def confirms(self, question: str) -> bool:
        """Ask a person on a terminal; return False where there is none."""
        if self.as_json or not sys.stdin.isatty():
            return False
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def note(self, text: str) -> None:
        """Report progress to a person, on stderr."""
        if not self.as_json:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def result(self, values: Mapping[str, object], **for_people: object) -> None:
        """Show the command's result; the lines of ``for_people`` are not part of the JSON."""
        if self.as_json:
            _write(json.dumps(values, ensure_ascii=False, default=str))
            return
        for name, value in {**values, **for_people}.items():
            _write(f"{name.replace('_', ' '):{LABEL_WIDTH}}{_text(value)}")

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[float], None]]:
        """Show progress: yield a function that takes the fraction done, 0 to 1."""
        if sys.stderr.isatty():
            try:
                # Optional: the bar comes with the "cli" extra.
                from rich.console import Console as Terminal  # noqa: PLC0415
                from rich.progress import Progress  # noqa: PLC0415
            except ImportError:
                pass
            else:
                with Progress(console=Terminal(stderr=True), transient=True) as bars:
                    task = bars.add_task(title, total=1.0)
                    yield lambda fraction: bars.update(task, completed=fraction)
                return
        self.note(f"{title} ...")
        yield lambda _: None


def printable(text: str | None, length: int = 72) -> str:
    """Return text from a database or a file as one short line that cannot steer a terminal."""
    shown = "".join(each if each.isprintable() else " " for each in text or "")
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4f}" if value < 1 else f"{value:.2f}"
    return str(value)
