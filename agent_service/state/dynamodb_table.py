"""A DynamoDB table of text under text keys, each with a version.

The only module that imports aioboto3 and botocore, and only to make a client of its own.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final
from uuid import uuid4

from agent_service.core.errors import ConfigurationError, StateStoreError
from agent_service.core.loop_registry import PerLoop

__all__ = ["DynamoDBTable"]

_CALLS: Final = ("get_item", "put_item", "delete_item", "scan")
_KEY: Final = "user_id"
_CONFLICT: Final = "ConditionalCheckFailedException"
_EXISTS: Final = "ResourceInUseException"


class DynamoDBTable:
    """Items of four attributes: ``user_id``, ``version``, ``document`` and ``write_id``.

    Every failure is a StateStoreError.

    :param client: the caller's client; None: the table creates one for each event loop.
    :raises ConfigurationError: if the client cannot be used, or aioboto3 is needed and not installed.
    """

    def __init__(self, name: str, *, client: Any, endpoint_url: str | None, region: str | None) -> None:
        self._name = name
        self._given = client
        options: dict[str, Any] = {"endpoint_url": endpoint_url, "region_name": region}
        if client is None:
            options["config"] = _config()
        else:
            _require_client(client)
        self._connections: PerLoop[_Connection] = PerLoop(lambda: _Connection(options), lambda made: made.close())

    async def get(self, key: str) -> tuple[str, int] | None:
        """Return the document under a key and its version."""
        with self._errors("read from"):
            client = await self._client()
            reply = await client.get_item(TableName=self._name, Key={_KEY: {"S": key}}, ConsistentRead=True)
        item = reply.get("Item")
        return None if item is None else (_value(item, "document", "S"), _version(item))

    async def put(self, key: str, document: str, *, version: int, present: int) -> bool:
        """Write a document if the present one has this version (0: there is none); return whether it had."""
        # Distinguishes our own write, which the client sent again after a lost reply, from that of another writer.
        write_id = uuid4().hex
        item = {
            _KEY: {"S": key},
            "version": {"N": str(version)},
            "document": {"S": document},
            "write_id": {"S": write_id},
        }
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(#attribute)"}
        condition["ExpressionAttributeNames"] = {"#attribute": "version" if present else _KEY}
        if present:
            condition["ConditionExpression"] = "#attribute = :present"
            condition["ExpressionAttributeValues"] = {":present": {"N": str(present)}}
        with self._errors("write to"):
            client = await self._client()
            try:
                await client.put_item(
                    TableName=self._name, Item=item, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition
                )
            except Exception as exc:
                if _code(exc) != _CONFLICT:
                    raise
                present_item = getattr(exc, "response", {}).get("Item", {})
                return bool(present_item.get("write_id") == {"S": write_id})
        return True

    async def delete(self, key: str) -> None:
        """Remove an item."""
        with self._errors("delete from"):
            client = await self._client()
            await client.delete_item(TableName=self._name, Key={_KEY: {"S": key}})

    async def keys(self) -> list[str]:
        """Return every key."""
        found: list[str] = []
        with self._errors("list"):
            client = await self._client()
            start: dict[str, Any] = {}
            while True:
                page = await client.scan(TableName=self._name, ConsistentRead=True, ProjectionExpression=_KEY, **start)
                found += [_value(item, _KEY, "S") for item in page["Items"]]
                if not page.get("LastEvaluatedKey"):
                    break
                start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        return found

    async def create(self) -> None:
        """Create the table unless it exists, and wait until it is active."""
        with self._errors("create"):
            client = await self._client()
            try:
                await client.create_table(
                    TableName=self._name,
                    KeySchema=[{"AttributeName": _KEY, "KeyType": "HASH"}],
                    AttributeDefinitions=[{"AttributeName": _KEY, "AttributeType": "S"}],
                    BillingMode="PAY_PER_REQUEST",
                )
            except Exception as exc:
                if _code(exc) != _EXISTS:
                    raise
            waiter = client.get_waiter("table_exists")
            await waiter.wait(TableName=self._name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    async def aclose(self) -> None:
        """Close the clients that were created here."""
        await self._connections.aclose()

    async def _client(self) -> Any:
        return self._given if self._given is not None else await self._connections.get().client()

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except StateStoreError:
            raise
        except Exception as exc:  # an error of botocore, of the system, or of another client
            reason = str(exc) or type(exc).__name__
            raise StateStoreError(f"could not {action} the DynamoDB table {self._name!r:.80}: {reason}") from exc


class _Connection:
    """A client for one event loop, created when first needed."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._making = asyncio.Lock()
        self._open = AsyncExitStack()
        self._made: Any = None

    async def client(self) -> Any:
        async with self._making:
            if self._made is None:
                import aioboto3  # noqa: PLC0415 - an extra, which _config() has asked for

                made = aioboto3.Session().client("dynamodb", **self._options)
                self._made = await self._open.enter_async_context(made)
        return self._made

    async def close(self) -> None:
        await self._open.aclose()


def _config() -> Any:
    """Limits of a client that is created here; times in seconds."""
    try:
        import aioboto3  # noqa: F401, PLC0415 - an extra
        from botocore.config import Config  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigurationError(
            "DynamoDBStateStore needs aioboto3: pip install 'agent-service[dynamodb]', or give client="
        ) from exc
    return Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})


def _require_client(client: Any) -> None:
    kind = type(client)
    missing = [each for each in _CALLS if not callable(getattr(client, each, None))]
    if missing:
        raise ConfigurationError(f"client must be a DynamoDB client; a {kind.__name__} lacks {', '.join(missing)}")
    rooms = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if "botocore" in rooms and "aiobotocore" not in rooms:
        raise ConfigurationError("client is one of boto3, which cannot be awaited; give one of aioboto3 or aiobotocore")


def _code(exc: Exception) -> str:
    """Return the error code of DynamoDB, as clients report it."""
    response = getattr(exc, "response", None)
    error = response.get("Error") if isinstance(response, dict) else None
    return str(error.get("Code")) if isinstance(error, dict) else type(exc).__name__


def _value(item: dict[str, Any], attribute: str, kind: str) -> str:
    value = item.get(attribute, {}).get(kind)
    if not isinstance(value, str):
        raise StateStoreError(f"an item has no {attribute!r} of type {kind}, so this store did not write it")
    return value


def _version(item: dict[str, Any]) -> int:
    version = _value(item, "version", "N")
    if not version.isdecimal():
        raise StateStoreError(f"an item's version is {version:.80}, so this store did not write it")
    return int(version)
