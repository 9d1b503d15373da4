import asyncio
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.errors import RedisDeniedError, RedisUnavailableError, SessionNotFoundError
from agent_service.core.exception_copies import bare_copy, copy_for_another


class Detailed(Exception):
    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NeedsMore(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Chameleon(Exception):
    def __new__(cls, *args: object) -> "Chameleon":
        return super().__new__(Quiet if args else cls, *args)


class Quiet(Chameleon):
    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Chameleon, ()


def raised(exc: Exception) -> Exception:
    try:
        try:
            raise KeyError("the context")
        except KeyError as context:
            raise exc from OSError("the cause", context)
    except type(exc) as caught:
        return caught


COPIED = [
    ValueError("a", 1),
    Detailed("a", code=7),
    RedisUnavailableError("away", maybe_executed=True),
    RedisDeniedError("denied"),
    SessionNotFoundError("none"),
    OSError(2, "No such file", "name"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ImportError("none", name="n", path="p"),
    ExceptionGroup("several", [ValueError(1), KeyError(2)]),
    TimeoutError(),
]


@pytest.mark.parametrize("exc", COPIED, ids=lambda exc: type(exc).__name__)
def test_another_caller_gets_what_the_first_one_gets(exc: Exception):
    exc = raised(exc)
    exc.add_note("noted")

    other = copy_for_another(exc)

    assert other is not exc
    assert (type(other), other.args, str(other), vars(other)) == (type(exc), exc.args, str(exc), vars(exc))
    assert "".join(traceback.format_exception(other)) == "".join(traceback.format_exception(exc))
    assert (other.__cause__, other.__context__) == (exc.__cause__, exc.__context__)
    assert other.__suppress_context__ == exc.__suppress_context__


@pytest.mark.parametrize("exc", COPIED, ids=lambda exc: type(exc).__name__)
def test_what_one_caller_does_to_its_exception_the_others_do_not_see(exc: Exception):
    exc = raised(exc)
    exc.add_note("noted")
    depth = len(traceback.extract_tb(exc.__traceback__))
    other = copy_for_another(exc)

    with pytest.raises(type(exc)) as caught:
        raise other from None
    caught.value.add_note("by the other")

    assert exc.__notes__[-1] == "noted"
    assert len(traceback.extract_tb(exc.__traceback__)) == depth
    assert exc.__cause__ is not None


@pytest.mark.parametrize("exc", [NeedsMore("a", "b"), Quiet("a")], ids=["arguments", "class"])
def test_what_cannot_be_copied_is_shared(exc: Exception):
    exc = raised(exc)
    traceback_ = exc.__traceback__

    assert copy_for_another(exc) is exc
    assert exc.__traceback__ is traceback_
    assert bare_copy(exc) is exc
    assert exc.__traceback__ is None


@pytest.mark.parametrize("exc", COPIED, ids=lambda exc: type(exc).__name__)
def test_a_kept_copy_keeps_no_frames(exc: Exception):
    exc = raised(exc)

    kept = bare_copy(exc)

    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    assert (type(kept), kept.args, str(kept)) == (type(exc), exc.args, str(exc))
    assert exc.__traceback__ is not None


@given(st.lists(st.integers() | st.text() | st.none()))
def test_arguments_come_along(arguments: list[object]):
    assert copy_for_another(ValueError(*arguments)).args == tuple(arguments)


def test_a_cancellation_may_be_copied_too():
    assert copy_for_another(asyncio.CancelledError("stop")).args == ("stop",)
