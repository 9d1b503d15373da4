"""Actions to run later, per tenant."""

from operator import attrgetter

from agent_service.core.milliseconds import to_milliseconds
from agent_service.tenants.base import Seconds, TenantCache, check_ttl, current_redis
from agent_service.tenants.keys import encode_component
from agent_service.tenants.schedule import DeadTrigger, Trigger, TriggerSchedule

__all__ = ["DeadTrigger", "RedisTrigger", "Trigger"]


class RedisTrigger(TenantCache):
    """The triggers of one tenant, each named by ``action`` and ``identifier``.

    A trigger is kept, as long as Redis keeps its data, until a
    :class:`~agent_service.tenants.runner.TriggerRunner` has handled it; it has no time to live. The cost of inspecting
    grows with the tenant's triggers.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)

    async def set(self, action: str, identifier: str, ttl_seconds: Seconds) -> bool:
        """Schedule the action for the identifier, after ``ttl_seconds`` at the earliest; return True.

        Setting it again reschedules it, with all its attempts, and removes it from the dead. If its handler runs
        meanwhile, it is handled once more.

        :raises RecordValueError: if a name cannot be used, or ``ttl_seconds`` is 0 or less.
        """
        milliseconds = to_milliseconds(check_ttl(ttl_seconds, "ttl_seconds"))
        await (await self._schedule()).set(self.tenant, action, identifier, milliseconds)
        return True

    async def delete(self, action: str, identifier: str) -> int:
        """Delete a trigger, waiting or dead; return 1, or 0 if there was none. A running handler is not stopped."""
        return int(await (await self._schedule()).delete(self.tenant, action, identifier))

    async def delete_all_by_identifier(self, identifier: str) -> int:
        """Delete the identifier's triggers in all actions of the tenant; return how many there were."""
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
        """Return the triggers that failed for the last time, the earliest failure first."""
        schedule = await self._schedule()
        found = [
            trigger
            for action in await schedule.actions(self.tenant)
            async for trigger in schedule.dead(self.tenant, action)
        ]
        return sorted(found, key=attrgetter("died_at", "action", "identifier"))

    async def _schedule(self) -> TriggerSchedule:
        return TriggerSchedule(*await current_redis())
