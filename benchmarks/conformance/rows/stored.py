"""What reading the bytes of a cache can do to the reader."""

import contextlib
import pickle
from collections.abc import Iterator

from benchmarks.conformance.adapter import Store
from benchmarks.conformance.server import keys_of_type
from benchmarks.conformance.stage import Source, Stage
from benchmarks.conformance.verdict import Verdict, judge

__all__ = ["no_code_from_stored_bytes"]

_executed: list[bool] = []


def execute() -> str:
    """Called by who believes the bytes."""
    _executed.append(True)
    return "executed"


class Hostile:
    """Pickles as a call of :func:`execute`."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return execute, ()


async def no_code_from_stored_bytes(stage: Stage) -> Verdict:
    """Somebody who can write to Redis puts a pickle there, behind each part that the library's own bytes begin with."""
    _executed.clear()
    source = Source({"name": "Ann"})
    async with stage.open(Store.SERVER) as cache:
        await cache.cached(source.reader())(7)
    stored = {key: stage.server.cli("GET", key) for key in keys_of_type(stage.server, b"string")}
    forged = 0
    for key, data in stored.items():
        for each in _forged(data):
            forged += 1
            stage.server.cli("SET", key, each)
            async with stage.open(Store.SERVER) as reader:
                with contextlib.suppress(Exception):  # refusing is right
                    await reader.cached(source.reader())(7)
            if _executed:
                return judge(False, "executed")
    assert forged, "nothing was stored"
    return judge(True, f"{forged} refused")


def _forged(data: bytes) -> Iterator[bytes]:
    payload = pickle.dumps(Hostile())
    for size in range(len(data) + 1):
        yield data[:size] + payload
