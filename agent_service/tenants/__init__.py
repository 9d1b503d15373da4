"""Repositories over Redis, scoped by tenant."""

from agent_service.tenants.base import TenantCache
from agent_service.tenants.keys import KeyFactory

__all__ = ["KeyFactory", "TenantCache"]
