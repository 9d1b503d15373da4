"""Repositories over Redis, scoped by tenant."""

from agent_service.tenants.base import TenantCache
from agent_service.tenants.batch import BatchClaim, RedisBatch
from agent_service.tenants.current import _current_ss as _current_ss
from agent_service.tenants.current import current_shared_state, shared_state_scope
from agent_service.tenants.generic import RedisGeneric
from agent_service.tenants.keys import KeyFactory
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.serde import dumps, loads
from agent_service.tenants.shared_state import RedisSharedState
from agent_service.tenants.state_handler import RedisStateHandler
from agent_service.tenants.table import RedisTable
from agent_service.tenants.trigger import DeadTrigger, RedisTrigger, Trigger
from agent_service.tenants.user import RedisUser

__all__ = [
    "BatchClaim",
    "DeadTrigger",
    "KeyFactory",
    "RedisBatch",
    "RedisGeneric",
    "RedisSharedState",
    "RedisStateHandler",
    "RedisTable",
    "RedisTrigger",
    "RedisUser",
    "TenantCache",
    "Trigger",
    "TriggerRunner",
    "current_shared_state",
    "dumps",
    "loads",
    "on_trigger",
    "shared_state_scope",
]
