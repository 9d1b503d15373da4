"""Tags are invalidated with the transaction, too."""

from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from tests.servers.proxy import TcpProxy
from tests.support.outbox import NAMESPACE


async def test_entries_that_carry_a_tag_are_loaded_again_after_the_commit(house: TcpProxy):
    loaded = []

    @cached(namespace=NAMESPACE, tags=["user:{user_id}"])
    async def profile(user_id: str) -> str:
        loaded.append(user_id)
        return user_id.title()

    for user_id in ("ada", "grace"):
        await profile(user_id)
    async with get_session() as db:
        invalidate_in(db, tags=["user:ada"], namespace=NAMESPACE)

    assert await drain_outbox() == 1
    assert [await profile("ada"), await profile("grace")] == ["Ada", "Grace"]
    assert loaded == ["ada", "grace", "ada"]
