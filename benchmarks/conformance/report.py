"""The table, printed."""

import argparse
import asyncio
import json
import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest

from benchmarks.conformance.adapter import Adapter
from benchmarks.conformance.libraries import installed, library
from benchmarks.conformance.ours import OURS
from benchmarks.conformance.stage import FULL
from benchmarks.conformance.table import ROWS, Row, probe
from benchmarks.conformance.verdict import Verdict
from tests.servers.redis import RedisServer

__all__ = ["run"]

TITLE = 42
CELL = 14


def run(arguments: Sequence[str] = ()) -> None:
    """Run every probe against every library that is installed, and print what they found."""
    chosen = _parse(arguments)
    versions = installed()
    kinds = [library(name) for name in chosen.library or [*(each.__name__ for each in OURS), *versions]]
    rows = [row for row in ROWS if not chosen.row or any(each in row.behaviour for each in chosen.row)]
    with _quiet(chosen.verbose):
        if chosen.json:
            table = {row.behaviour: {kind.name: asdict(_cell(row, kind)) for kind in kinds} for row in rows}
            print(json.dumps({"versions": versions, "rows": table}, indent=2))
            return
        _print_row("How caches behave", [(kind.name, versions.get(kind.__name__, "")) for kind in kinds])
        for row in rows:
            found = [_cell(row, kind) for kind in kinds]
            _print_row(row.behaviour, [(each.answer, each.figure) for each in found])


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=run.__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--library", action="append", metavar="NAME", help="only this adapter class; may be repeated")
    parser.add_argument("--row", action="append", metavar="TEXT", help="only rows with this in them; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="let the libraries log")
    return parser.parse_args(arguments)


def _cell(row: Row, kind: type[Adapter]) -> Verdict:
    """Probe with a server and an event loop of its own. A library that raises where it should not has failed."""
    with RedisServer() as server:
        try:
            return asyncio.run(probe(row, kind, server, FULL))
        except Exception as exc:
            logging.getLogger(__name__).exception("%s: %s", kind.name, row.behaviour)
            return Verdict("no", type(exc).__name__)


def _print_row(title: str, cells: Sequence[tuple[str, str]]) -> None:
    """Print the title beside the answers, and the figures below them."""
    for text, texts in zip_longest(textwrap.wrap(title, TITLE - 2), zip(*cells, strict=True)):
        print(f"{text or '':<{TITLE}}" + "".join(f"{each[: CELL - 1]:<{CELL}}" for each in texts or ()))
    print(flush=True)


@contextmanager
def _quiet(loud: bool) -> Iterator[None]:
    """Keep the libraries from logging the outages that the probes make."""
    before = logging.root.manager.disable
    logging.disable(logging.NOTSET if loud else logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
