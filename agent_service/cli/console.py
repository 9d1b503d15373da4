"""What the command shows: results on stdout, progress on stderr; JSON for machines, plain lines or bars for people."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

__all__ = ["Console", "as_json_text", "printable"]

LABEL_WIDTH = 28
CELL_WIDTH = 60
LINE_WIDTH = 1000


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
            _write(as_json_text(values))
            return
        for name, value in {**values, **for_people}.items():
            _write(f"{name.replace('_', ' '):{LABEL_WIDTH}}{printable(_text(value), LINE_WIDTH)}")

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], **more: object) -> None:
        """Show rows: columns on a terminal, lines of values between tabs in a pipe, one JSON object to a machine.

        :param name: of the list in the JSON object, which also has ``more``.
        """
        if self.as_json:
            listed = [dict(zip(columns, row, strict=True)) for row in rows]
            _write(as_json_text({name: listed, **more}))
            return
        if not sys.stdout.isatty():
            for row in rows:
                _write("\t".join(_cell(each, None) for each in row))  # whole: another command may be given a value
            return
        cells = [[_cell(each, CELL_WIDTH) for each in row] for row in rows]
        if not rows:
            _write(f"no {name.replace('_', ' ')}")
            return
        heads = [column.replace("_", " ") for column in columns]
        widths = [max(len(row[position]) for row in [heads, *cells]) for position in range(len(heads))]
        numbers = [all(isinstance(row[position], int | float) for row in rows) for position in range(len(heads))]
        for line in [heads, ["-" * width for width in widths], *cells]:
            padded = (
                text.rjust(width) if number else text.ljust(width)
                for text, width, number in zip(line, widths, numbers, strict=True)
            )
            _write("  ".join(padded).rstrip())

    def failure(self, exc: Exception) -> None:
        """Show an error: one line on stderr, and to a machine one JSON object on stdout as well."""
        message = " ".join(str(exc).split())
        if self.as_json:
            _write(as_json_text({"error": message, "type": type(exc).__name__}))
        sys.stderr.write(f"agent-service: {message}\n")

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


def printable(text: str | None, length: int | None = 72) -> str:
    """Return text from elsewhere as one line that cannot steer a terminal; whole if ``length`` is None."""
    shown = "".join(each if each.isprintable() else " " for each in text or "")
    return shown if length is None or len(shown) <= length else f"{shown[: length - 1]}…"


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def as_json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON: what JSON has no form for, such as NaN or a key that is a tuple, as text.

    It is escaped where standard output has no place for all characters.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    options = {"ensure_ascii": encoding != "utf8", "default": str, "indent": indent, "allow_nan": False}
    try:
        return json.dumps(value, **options)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return json.dumps(_plain(value), **options)  # type: ignore[arg-type]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object, length: int | None) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return "" if value is None else printable(_text(value), length)


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4f}" if value < 1 else f"{value:.2f}"
    return str(value)
