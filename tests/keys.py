"""What a cache calls its entries in Redis."""

from agent_service.core.keys import check_key, key_prefix


def physical_key(prefix: str, namespace: str, key: str) -> bytes:
    """Return the name of an entry, as ``agent_service.infrastructure.cache.redis.names`` does."""
    return key_prefix(prefix, namespace) + check_key(key).encode()
