"""What a run needs so that several processes can share it, and so that it is the same on every machine."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.ids import steady
from tests.support.reports import encodable

ROOT = Path(__file__).parents[2]


def test_names_of_test_cases_are_equal_in_every_process(request: pytest.FixtureRequest):
    """xdist compares them between workers; this says which one differs, also in a run of one process."""
    for item in request.session.items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        sets = [each for each in values if isinstance(each, (set, frozenset)) and len(each) > 1]
        unordered = [repr(each) for each in sets if not all(type(value) is int for value in each)]  # ints are unsalted

        assert " at 0x" not in item.nodeid
        assert not any(each in item.nodeid for each in unordered), item.nodeid


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_steady_names_depend_neither_on_addresses_nor_on_the_seed_of_hashes(seed: str):
    code = "from tests.support.ids import steady; print(steady({'a', 'b', 'c', 'd'}), steady(('a', object())))"
    named = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert named.stdout == "set('a', 'b', 'c', 'd') ('a', <object object>)\n"
    assert steady(frozenset()) == "frozenset()"


def test_captured_output_can_be_sent_whatever_it_holds():
    assert encodable("a\ud800ü") == "a\\ud800ü"


def test_nothing_of_the_surroundings_reaches_a_test(tmp_path: Path):
    """Ask in a process that was started the way a shell starts jobs, with settings that others like."""
    code = textwrap.dedent(
        """
        import locale, os, signal, time
        from tests.support.surroundings import clean
        clean()
        mask = os.umask(0)
        print(sorted(os.environ), os.environ["TZ"], time.tzname, oct(mask), locale.getencoding())
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, int(signal.getsignal(signal.SIGTERM)))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        """
    )
    hostile = {
        "TZ": "Asia/Kolkata",
        "LC_ALL": "tr_TR.UTF-8",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "PGHOST": "nowhere",
        "REDIS_URL": "redis://nowhere",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONOPTIMIZE": "",
    }

    def as_a_job() -> None:
        os.umask(0o077)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **hostile},
        preexec_fn=as_a_job,
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.splitlines() == [
        "['HOME', 'LC_ALL', 'PATH', 'TERM', 'TZ'] UTC ('UTC', 'UTC') 0o22 UTF-8",
        "True 0",
        "set()",
    ]


def test_the_zone_of_this_process_is_utc():
    assert time.tzname == ("UTC", "UTC")
