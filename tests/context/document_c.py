"""The second document's stores, as they are written there: an interface, and three stores of plain methods."""

# ruff: noqa: B904, BLE001, RUF010, TRY300 - the document's own code

import json
import sqlite3
from pathlib import Path
from typing import Any, Protocol

import redis

from agent_service.core.errors import ContextStoreError

__all__ = ["DatabaseContextStore", "InMemoryContextStore", "RedisContextStore"]


class ContextStore(Protocol):
    """Defines the interface for storing and retrieving context metadata."""

    def set(self, key: Any, value: dict[str, Any]) -> None: ...

    def get(self, key: Any) -> dict[str, Any] | None: ...

    def delete(self, key: Any) -> None: ...

    def list_keys(self) -> list[Any]: ...


class InMemoryContextStore(ContextStore):
    def __init__(self) -> None:
        self._store: dict[Any, dict[str, Any]] = {}

    def set(self, key: Any, value: dict[str, Any]) -> None:
        self._store[key] = value

    def get(self, key: Any) -> dict[str, Any] | None:
        return self._store.get(key, None)

    def delete(self, key: Any) -> None:
        if key in self._store:
            del self._store[key]

    def list_keys(self) -> list[Any]:
        return list(self._store.keys())


class RedisContextStore(ContextStore):
    def __init__(self, host: str, port: int, db: int = 0) -> None:
        try:
            self._client = redis.Redis(host=host, port=port, db=db)
        except redis.RedisError as e:
            raise ContextStoreError(f"Failed to connect to Redis: {str(e)}")

    def set(self, key: Any, value: dict[str, Any]) -> None:
        try:
            self._client.set(key, json.dumps(value))
        except redis.RedisError as e:
            raise ContextStoreError(f"Redis set operation failed: {str(e)}")

    def get(self, key: Any) -> dict[str, Any] | None:
        try:
            data: Any = self._client.get(key)
            if data is None:
                return None
            found: dict[str, Any] = json.loads(data)
            return found
        except redis.RedisError as e:
            raise ContextStoreError(f"Redis get operation failed: {str(e)}")

    def delete(self, key: Any) -> None:
        try:
            self._client.delete(key)
        except redis.RedisError as e:
            raise ContextStoreError(f"Redis delete operation failed: {str(e)}")

    def list_keys(self) -> list[Any]:
        try:
            keys: Any = self._client.keys("*")
            return [key.decode("utf-8") for key in keys]
        except redis.RedisError as e:
            raise ContextStoreError(f"Redis list_keys operation failed: {str(e)}")


class DatabaseContextStore(ContextStore):
    def __init__(self, db_path: str | Path = "context.db") -> None:
        self.connection = sqlite3.connect(db_path)
        self._init_table()

    def _init_table(self) -> None:
        cursor = self.connection.cursor()
        cursor.execute("""
            CREATE TABLE IF NOT EXISTS context_store (
                key TEXT PRIMARY KEY,
                value TEXT
            )
        """)
        self.connection.commit()

    def set(self, key: Any, value: dict[str, Any]) -> None:
        try:
            serialized = json.dumps(value)
            cursor = self.connection.cursor()
            cursor.execute("REPLACE INTO context_store (key, value) VALUES (?, ?)", (str(key), serialized))
            self.connection.commit()
        except Exception as e:
            raise ContextStoreError(f"Database set failed: {str(e)}")

    def get(self, key: Any) -> dict[str, Any] | None:
        try:
            cursor = self.connection.cursor()
            cursor.execute("SELECT value FROM context_store WHERE key = ?", (str(key),))
            row = cursor.fetchone()
            if row is None:
                return None
            found: dict[str, Any] = json.loads(row[0])
            return found
        except Exception as e:
            raise ContextStoreError(f"Database get failed: {str(e)}")

    def delete(self, key: Any) -> None:
        try:
            cursor = self.connection.cursor()
            cursor.execute("DELETE FROM context_store WHERE key = ?", (str(key),))
            self.connection.commit()
        except Exception as e:
            raise ContextStoreError(f"Database delete failed: {str(e)}")

    def list_keys(self) -> list[Any]:
        try:
            cursor = self.connection.cursor()
            cursor.execute("SELECT key FROM context_store")
            rows = cursor.fetchall()
            return [row[0] for row in rows]
        except Exception as e:
            raise ContextStoreError(f"Database list_keys failed: {str(e)}")
