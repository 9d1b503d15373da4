"""State in Amazon DynamoDB."""

from collections.abc import Mapping
from typing import Any

from agent_service.context.documents import read_document, write_document
from agent_service.context.keys import decode_key, encode_key
from agent_service.core.errors import ConfigurationError, StateStoreError
from agent_service.state.base import VersionedStateStore
from agent_service.state.dynamodb_table import DynamoDBTable
from agent_service.state.interface import ContextT

__all__ = ["DynamoDBStateStore"]

_LONGEST_ID = 2048
"""The most bytes of a partition key in DynamoDB."""


class DynamoDBStateStore(VersionedStateStore[ContextT]):
    """Keeps contexts in a DynamoDB table, one item per user. Without a client it needs the extra ``dynamodb``.

    Saves are conditional writes on the version and reads are strongly consistent. An item may have 400 KB, names
    included; a larger context is refused, so keep long histories elsewhere. Listing users reads the whole table.
    Without a client the store creates one on every event loop that uses it, with the credentials and settings that AWS
    tools find in the environment; :meth:`aclose` closes them.

    :param table: its name; partition key ``user_id``, a string, and no sort key. :meth:`create_table` makes it.
    :param client: a DynamoDB client of aioboto3 or aiobotocore, or any object with their ``get_item``, ``put_item``,
        ``delete_item`` and ``scan`` as coroutines; the caller's to close.
    :param endpoint_url: of a DynamoDB-compatible server other than Amazon's.
    :param region: such as ``eu-central-1``; None: the environment's.
    :param model: the class of the contexts; None: CoachContext.
    :raises ConfigurationError: if the extra is needed and not installed, the client cannot be used, or arguments
        contradict one another.
    """

    def __init__(
        self,
        table: str,
        *,
        client: Any = None,
        endpoint_url: str | None = None,
        region: str | None = None,
        model: type[ContextT] | None = None,
    ) -> None:
        super().__init__(model=model)
        if not isinstance(table, str) or not table:
            raise ConfigurationError(f"table must be the name of a DynamoDB table, got {table!r:.80}")
        if client is not None and (endpoint_url is not None or region is not None):
            raise ConfigurationError("a client has its endpoint and region; give client, or endpoint_url and region")
        self._table = DynamoDBTable(table, client=client, endpoint_url=endpoint_url, region=region)

    async def create_table(self) -> None:
        """Create the table, billed per request, and wait until it can be used; do nothing if it exists.

        :raises StateStoreError: if DynamoDB refuses, or cannot be reached.
        """
        await self._table.create()

    async def _read(self, user_id: str) -> Mapping[str, Any] | None:
        found = await self._table.get(_key(user_id))
        if found is None:
            return None
        document, version = found
        # Writes are conditional on the attribute, even if another program changed the document.
        return {**read_document(document.encode()), "version": version}

    async def _replace(self, user_id: str, document: Mapping[str, Any], present: int) -> bool:
        data = write_document(document).decode()
        return await self._table.put(_key(user_id), data, version=document["version"], present=present)

    async def _remove(self, user_id: str) -> None:
        await self._table.delete(_key(user_id))

    async def _user_ids(self) -> list[str]:
        return [key for key in map(decode_key, await self._table.keys()) if isinstance(key, str)]

    async def aclose(self) -> None:
        await self._table.aclose()


def _key(user_id: str) -> str:
    key = encode_key(user_id)
    size = len(key.encode())
    if size > _LONGEST_ID:
        raise StateStoreError(f"the id takes {size} bytes and DynamoDB allows {_LONGEST_ID}; use a digest of it")
    return key
