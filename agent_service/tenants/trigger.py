"""Actions to be done later, per tenant."""

from operator import attrgetter

from agent_service.core.milliseconds import to_milliseconds
from agent_service.tenants.base import Seconds, TenantCache, check_ttl, current_redis
from agent_service.tenants.keys import encode_component
from agent_service.tenants.schedule import DeadTrigger, Trigger, TriggerSchedule

__all__ = ["DeadTrigger", "RedisTrigger", "Trigger"]


class RedisTrigger(TenantCache):
    """The triggers of one tenant, each named by ``action`` and ``identifier``.

    A trigger that was set is kept, as far as Redis keeps its data, until a
    :class:`~agent_service.tenants.runner.TriggerRunner` has handled it; it has no time to live.
    Inspecting costs what the tenant has.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)

    async def set(self, action: str, identifier: str, ttl_seconds: Seconds) -> bool:
        """Have the action done for the identifier after ``ttl_seconds``, at the earliest; True when it is scheduled.

        Setting it again reschedules it, with all its attempts before it, and takes it from the dead. While a handler
        runs, it leads to another handling.

        :raises RecordValueError: for a name that cannot be used, and for 0 seconds and less.
        """
        milliseconds = to_milliseconds(check_ttl(ttl_seconds, "ttl_seconds"))
        await (await self._schedule()).set(self.tenant, action, identifier, milliseconds)
        return True

    async def delete(self, action: str, identifier: str) -> int:
        """Forget a trigger, waiting or dead; give 1, or 0 where there was none. A handler that runs is not stopped."""
        return int(await (await self._schedule()).delete(self.tenant, action, identifier))

    async def delete_all_by_identifier(self, identifier: str) -> int:
        """Forget the identifier's triggers in all actions of the tenant; give how many there were."""
        encode_component(identifier, "identifier")
        schedule = await self._schedule()
        actions = await schedule.actions(self.tenant)
        return sum([await schedule.delete(self.tenant, action, identifier) for action in actions])

    async def pending(self) -> list[Trigger]:
        """Return the triggers that are not done, the earliest first: waiting, being handled, or to be tried again."""
        schedule = await self._schedule()
        found = [
            trigger
            for action in await schedule.actions(self.tenant)
            async for trigger in schedule.waiting(self.tenant, action)
        ]
        return sorted(found, key=attrgetter("due_at", "action", "identifier"))

    async def late(self) -> list[Trigger]:
        """Return the pending triggers whose due time has passed, the earliest first."""
        now = await (await self._schedule()).now()
        return [trigger for trigger in await self.pending() if trigger.due_at <= now]

    async def dead(self) -> list[DeadTrigger]:
        """Return the triggers that failed for the last time, those that died first before the others."""
        schedule = await self._schedule()
        found = [
            trigger
            for action in await schedule.actions(self.tenant)
            async for trigger in schedule.dead(self.tenant, action)
        ]
        return sorted(found, key=attrgetter("died_at", "action", "identifier"))

    async def _schedule(self) -> TriggerSchedule:
        return TriggerSchedule(*await current_redis())
