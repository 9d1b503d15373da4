"""What DynamoDB adds to the contract: repeated writes, limits, pages, clients."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aioboto3
import botocore.session
import pytest

from agent_service.core.errors import ConfigurationError, StateConflictError, StateStoreError
from agent_service.state.dynamodb import DynamoDBStateStore
from agent_service.state.models import CoachContext
from tests.servers.proxy import TcpProxy
from tests.support.forked import CHECKOUT
from tests.support.ids import steady


@pytest.fixture
async def client(dynamodb_url: str) -> AsyncIterator[Any]:
    async with aioboto3.Session().client("dynamodb", endpoint_url=dynamodb_url) as client:
        yield client


@pytest.fixture
async def store(client: Any, table: str) -> DynamoDBStateStore:
    store = DynamoDBStateStore(table, client=client)
    await store.create_table()
    return store


async def test_an_item_is_what_the_documentation_says(store: DynamoDBStateStore, client: Any, table: str):
    await store.save_context(CoachContext(user_id="ada"))

    item = (await client.get_item(TableName=table, Key={"user_id": {"S": "ada"}}))["Item"]

    assert item["version"] == {"N": "1"}
    assert item["document"]["S"].startswith('{"user_id":"ada","current_state":"introduction"')
    assert item.keys() == {"user_id", "version", "document", "write_id"}


async def test_creating_a_table_that_exists_does_nothing(store: DynamoDBStateStore):
    await store.save_context(CoachContext(user_id="a"))

    await asyncio.gather(store.create_table(), store.create_table())

    assert await store.list_user_ids() == ["a"]


async def test_a_given_client_stays_open(store: DynamoDBStateStore, client: Any):
    await store.aclose()

    assert (await client.list_tables())["TableNames"] != []


async def test_a_save_whose_reply_was_lost_and_that_the_client_repeats_is_no_conflict(
    store: DynamoDBStateStore, dynamodb_url: str, table: str
):
    async with TcpProxy(dynamodb_url) as proxy, DynamoDBStateStore(table, endpoint_url=proxy.url) as unlucky:
        context = CoachContext(user_id="a")
        assert await unlucky.load_context("a") is None
        proxy.cut_reply_after(0)
        await unlucky.save_context(context, expected_version=0)
        proxy.cut_reply_after(0)
        await unlucky.save_context(context, expected_version=1)
        accepted = proxy.accepted
        with pytest.raises(StateConflictError):
            await unlucky.save_context(context, expected_version=1)

    assert accepted == 5
    assert await store.load_context("a") == context
    assert context.version == 2


async def test_a_context_too_large_for_an_item_is_refused_and_the_old_one_stays(store: DynamoDBStateStore):
    context = CoachContext(user_id="a")
    await store.save_context(context)
    context.consolidated_summary = "x" * 500_000

    with pytest.raises(StateStoreError, match="'a'") as caught:
        await store.save_context(context, expected_version=1)
    found = await store.load_context("a")

    assert not isinstance(caught.value, StateConflictError)
    assert found is not None
    assert (found.consolidated_summary, found.version) == ("", 1)


async def test_an_id_too_long_for_a_key_is_refused_before_anything_is_sent(store: DynamoDBStateStore):
    await store.save_context(CoachContext(user_id="x" * 2048))

    for user_id in ("x" * 2049, "\U0001f600" * 600):
        with pytest.raises(StateStoreError, match="2048"):
            await store.save_context(CoachContext(user_id=user_id))
    assert await store.list_user_ids() == ["x" * 2048]


async def test_every_page_of_a_table_is_listed(store: DynamoDBStateStore):
    users = [f"user-{n}" for n in range(8)]
    for user_id in users:
        await store.save_context(CoachContext(user_id=user_id, consolidated_summary="x" * 300_000))

    assert sorted(await store.list_user_ids()) == users


@pytest.mark.parametrize(
    "attributes",
    [{"version": {"N": "1"}}, {"document": {"S": "{}"}}, {"document": {"S": "{}"}, "version": {"N": "1.5"}}, {}],
    ids=repr,
)
async def test_an_item_of_somebody_else_is_an_error(
    store: DynamoDBStateStore, client: Any, table: str, attributes: Any
):
    await client.put_item(TableName=table, Item={"user_id": {"S": "ada"}, **attributes})

    for call in (store.load_context("ada"), store.save_context(CoachContext(user_id="ada"))):
        with pytest.raises(StateStoreError, match=r"'ada'.*did not write it"):
            await call


async def test_a_document_that_somebody_edited_can_be_saved_over(store: DynamoDBStateStore, client: Any, table: str):
    context = CoachContext(user_id="ada")
    await store.save_context(context)
    item = (await client.get_item(TableName=table, Key={"user_id": {"S": "ada"}}))["Item"]
    item["document"]["S"] = item["document"]["S"].replace('"version":1', '"version":9')
    await client.put_item(TableName=table, Item=item)

    edited = await store.load_context("ada")
    await store.save_context(context)

    assert edited is not None
    assert (edited.version, context.version) == (1, 2)


def test_a_store_serves_every_loop_that_uses_it(dynamodb_url: str, table: str):
    store = DynamoDBStateStore(table, endpoint_url=dynamodb_url)

    async def save() -> int:
        await store.create_table()
        context = CoachContext(user_id="a")
        await asyncio.gather(*(store.load_context("a") for _ in range(3)))
        await store.save_context(context)
        await store.aclose()
        return context.version

    assert [asyncio.run(save()) for _ in range(2)] == [1, 2]


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "aioboto3", None)
    monkeypatch.delitem(sys.modules, "agent_service.state.dynamodb_table", raising=False)

    with pytest.raises(ConfigurationError, match=r"agent-service\[dynamodb\]"):
        DynamoDBStateStore("table")


# -- clients that others made

WITHOUT_AWS = """
import sys
for name in ("aioboto3", "aiobotocore", "boto3", "botocore"):
    sys.modules[name] = None
import asyncio
from tests.state.test_dynamodb_client import use
asyncio.run(use())
print("used")
"""


def test_a_given_client_needs_none_of_the_packages_of_aws():
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_AWS], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )

    assert (result.stdout, result.returncode) == ("used\n", 0), result.stderr


def test_a_client_that_cannot_be_awaited_is_refused_by_name():
    session = botocore.session.get_session()
    client = session.create_client(
        "dynamodb", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )

    with pytest.raises(ConfigurationError, match=r"client.*aioboto3"):
        DynamoDBStateStore("table", client=client)


@pytest.mark.parametrize("client", [object(), "dynamodb", {}], ids=steady)
def test_what_is_no_client_is_refused_by_name(client: Any):
    with pytest.raises(ConfigurationError, match=r"client.*get_item"):
        DynamoDBStateStore("table", client=client)
