"""DynamoDB over a client of somebody else's, with errors of its own: no package of AWS is asked for."""

import asyncio
from typing import Any

import pytest

from agent_service.core.errors import StateConflictError, StateStoreError
from agent_service.state.dynamodb import DynamoDBStateStore
from agent_service.state.models import CoachContext


class RefusedError(Exception):
    """How clients of DynamoDB tell what the server answered."""

    def __init__(self, code: str, item: dict[str, Any] | None = None) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, **({} if item is None else {"Item": item})}


class Client:
    """The four calls that a store makes, over a dictionary, with pages of two items."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.failure: Exception | None = None

    async def get_item(self, *, TableName: str, Key: Any, ConsistentRead: bool) -> dict[str, Any]:  # noqa: N803
        assert (TableName, ConsistentRead) == ("table", True)
        if self.failure is not None:
            raise self.failure
        item = self.items.get(Key["user_id"]["S"])
        return {} if item is None else {"Item": item}

    async def put_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Item: dict[str, Any],  # noqa: N803
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeNames: Any,  # noqa: N803
        ExpressionAttributeValues: Any = None,  # noqa: N803
        ReturnValuesOnConditionCheckFailure: str,  # noqa: N803
    ) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        present = self.items.get(Item["user_id"]["S"])
        if ConditionExpression.startswith("attribute_not_exists"):
            holds = present is None
        else:
            holds = present is not None and present["version"] == ExpressionAttributeValues[":present"]
        if not holds:
            raise RefusedError("ConditionalCheckFailedException", present)
        self.items[Item["user_id"]["S"]] = Item
        return {}

    async def delete_item(self, *, TableName: str, Key: Any) -> dict[str, Any]:  # noqa: N803
        self.items.pop(Key["user_id"]["S"], None)
        return {}

    async def scan(
        self,
        *,
        TableName: str,  # noqa: N803
        ConsistentRead: bool,  # noqa: N803
        ProjectionExpression: str,  # noqa: N803
        ExclusiveStartKey: Any = None,  # noqa: N803
    ) -> dict[str, Any]:
        names = sorted(self.items)
        start = names.index(ExclusiveStartKey["user_id"]["S"]) + 1 if ExclusiveStartKey else 0
        page = [{ProjectionExpression: {"S": name}} for name in names[start : start + 2]]
        last = {"LastEvaluatedKey": page[-1]} if start + 2 < len(names) else {}
        return {"Items": page, **last}


async def use() -> None:
    """Save, load, conflict, list and delete."""
    store = DynamoDBStateStore("table", client=Client())
    for name in ("ada", "bob", "cy", "dee", "eve"):
        await store.save_context(CoachContext(user_id=name))
    context = await store.load_context("ada")
    assert context is not None
    await store.save_context(context, expected_version=1)
    try:
        await store.save_context(context, expected_version=1)
    except StateConflictError:
        pass
    else:
        raise AssertionError("a conflict was not told")
    assert sorted(await store.list_user_ids()) == ["ada", "bob", "cy", "dee", "eve"]
    await store.delete_context("ada")
    assert await store.load_context("ada") is None


async def test_a_client_of_four_calls_is_enough():
    await use()


@pytest.mark.parametrize(
    "failure", [RefusedError("ProvisionedThroughputExceededException"), RuntimeError("driver"), KeyError("inner")]
)
async def test_what_such_a_client_raises_is_chained_and_names_the_table(failure: Exception):
    client = Client()
    store = DynamoDBStateStore("table", client=client)
    client.failure = failure

    for call in (
        store.load_context("ada"),
        store.save_context(CoachContext(user_id="ada"), expected_version=0),
    ):
        with pytest.raises(StateStoreError, match="'table'") as caught:
            await call
        assert caught.value.__cause__ is failure
    client.failure = asyncio.CancelledError()  # type: ignore[assignment] # a BaseException stays what it is
    with pytest.raises(asyncio.CancelledError):
        await store.load_context("ada")
