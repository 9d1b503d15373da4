"""Whose session it is: a tenant and a user, fixed or taken from the context of each run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.validation import require_identifier, require_tenant

if TYPE_CHECKING:
    from agent_service.integrations.openai_agents.sdk import Wrapper

__all__ = ["Owner", "Owners", "TenantId", "UserId"]

UserId: TypeAlias = UUID | str | Callable[[Any], UUID | str]
"""A user, or a function that returns the user of a run's context object."""
TenantId: TypeAlias = str | Callable[[Any], str]
"""A tenant, or a function that returns the tenant of a run's context object."""


class Owner(NamedTuple):
    """Whose session it is in one call."""

    tenant_id: str
    user_id: UUID | str


class Owners:
    """Returns the owner for each call.

    :raises SessionValueError: a fixed value cannot name a user or tenant.
    """

    def __init__(self, user_id: UserId, tenant_id: TenantId) -> None:
        self._user_id = user_id
        self._tenant_id = tenant_id
        if not callable(user_id):
            require_identifier(user_id, "user_id")
        if not callable(tenant_id):
            require_tenant(tenant_id)

    def of(self, wrapper: "Wrapper | None") -> Owner:
        """Return the owner of a call.

        :param wrapper: the run's; None outside of a run.
        :raises SessionValueError: what the context of the run is to say cannot be used, or there is no run.
        """
        user_id = _asked(self._user_id, "user_id", wrapper)
        require_identifier(user_id, "user_id")
        return Owner(require_tenant(_asked(self._tenant_id, "tenant_id", wrapper)), user_id)


def _asked(given: Any, name: str, wrapper: "Wrapper | None") -> Any:
    if not callable(given):
        return given
    if wrapper is None:
        raise SessionValueError(
            f"{name} comes from the context of a run, and this call has none; pass wrapper=, or give the session "
            f"a fixed {name} where it is used outside of runs or inside of another session"
        )
    return given(wrapper.context)
