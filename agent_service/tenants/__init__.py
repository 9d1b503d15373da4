"""Repositories over Redis, scoped by tenant."""

from agent_service.tenants.base import TenantCache
from agent_service.tenants.current import _current_ss as _current_ss
from agent_service.tenants.current import current_shared_state, shared_state_scope
from agent_service.tenants.generic import RedisGeneric
from agent_service.tenants.keys import KeyFactory
from agent_service.tenants.serde import dumps, loads
from agent_service.tenants.shared_state import RedisSharedState
from agent_service.tenants.state_handler import RedisStateHandler
from agent_service.tenants.table import RedisTable
from agent_service.tenants.user import RedisUser

__all__ = [
    "KeyFactory",
    "RedisGeneric",
    "RedisSharedState",
    "RedisStateHandler",
    "RedisTable",
    "RedisUser",
    "TenantCache",
    "current_shared_state",
    "dumps",
    "loads",
    "shared_state_scope",
]
