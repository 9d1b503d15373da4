"""Errors of redis-py become ours. What a real server can be made to say is tested on one: see test_faults."""

import pytest
from redis import exceptions

from agent_service.core.errors import RedisCommandError, RedisRefusedError, RedisUnavailableError
from agent_service.infrastructure.redis.errors import is_translatable, translate

OOM_IN_A_SCRIPT_OF_REDIS_6 = (
    "Error running script (call to f_1): @user_script:1: @user_script: 1: "
    "-OOM command not allowed when used memory > 'maxmemory'."
)


@pytest.mark.parametrize(
    "exc",
    [
        exceptions.ConnectionError("Connection closed by server."),
        exceptions.TimeoutError("Timeout reading"),
        exceptions.MaxConnectionsError("Too many connections"),
        exceptions.InvalidResponse("Protocol error"),
        exceptions.RedisClusterException("Redis Cluster cannot be connected."),
        exceptions.SlotNotCoveredError("Slot 1 is not covered"),
        exceptions.ClusterError("TTL exhausted."),
        OSError(111, "Connection refused"),
        TimeoutError(),
        RuntimeError("Event loop is closed"),
        AttributeError("'NoneType' object has no attribute 'writelines'"),
    ],
)
@pytest.mark.parametrize("sent", [True, False])
def test_what_keeps_an_answer_away_is_an_outage(exc: Exception, sent: bool):
    error = translate(exc, sent=sent)

    assert is_translatable(exc)
    assert isinstance(error, RedisUnavailableError)
    assert error.maybe_executed is sent


@pytest.mark.parametrize(
    "exc",
    [
        exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        exceptions.ReadOnlyError("You can't write against a read only replica."),
        exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        exceptions.ClusterDownError("The cluster is down"),
        exceptions.MasterDownError("Link with MASTER is down"),
        exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        exceptions.ResponseError("BUSY Redis is busy running a script."),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
        exceptions.ResponseError(OOM_IN_A_SCRIPT_OF_REDIS_6),
    ],
)
def test_an_answer_that_says_not_now_is_a_refusal(exc: Exception):
    assert isinstance(translate(exc, sent=True), RedisRefusedError)


@pytest.mark.parametrize(
    "exc",
    [
        exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        exceptions.ResponseError("unknown command 'OOM ', with args"),
        exceptions.NoPermissionError("this user has no permissions"),
        exceptions.AuthenticationError("invalid username-password pair"),
        exceptions.AuthorizationError("no"),
        exceptions.DataError("Invalid input of type"),
        exceptions.ClusterCrossSlotError("Keys in request don't hash to the same slot"),
        exceptions.CrossSlotTransactionError("All keys involved in a cluster transaction must map to the same slot"),
        exceptions.RedisClusterException("MGET - all keys must map to the same key slot"),
        exceptions.ConnectionError(exceptions.AuthenticationError("wrapped on unix sockets")),
    ],
)
def test_an_answer_that_says_never_is_the_callers_error(exc: Exception):
    assert isinstance(translate(exc, sent=True), RedisCommandError)


@pytest.mark.parametrize("exc", [TypeError("x"), RuntimeError("a bug"), AttributeError("no such thing"), KeyError("x")])
def test_a_bug_is_not_translated(exc: Exception):
    assert not is_translatable(exc)
