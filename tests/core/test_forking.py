"""What is renewed in a forked process, and what it leaves when the interpreter exits."""

import gc
import subprocess
import sys

from agent_service.core import forking

PROGRAM = """
from agent_service.context.key_locks import KeyLocks
locks = KeyLocks()
"""


def test_an_exit_with_something_to_renew_writes_nothing():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")


def test_each_method_of_one_object_is_renewed_and_none_of_an_object_that_is_gone():
    class Counts:
        renewed: list[str] = []  # noqa: RUF012 - of one test

        def first(self) -> None:
            self.renewed.append("first")

        def second(self) -> None:
            self.renewed.append("second")

    kept, gone = Counts(), Counts()
    forking.renew_after_fork(kept.first)
    forking.renew_after_fork(kept.second)
    forking.renew_after_fork(gone.first)
    before = len(forking._renewals)
    del gone
    gc.collect()
    for each in tuple(forking._renewals):
        if each() is kept:
            each.renew()

    assert sorted(Counts.renewed) == ["first", "second"]
    assert len(forking._renewals) < before
