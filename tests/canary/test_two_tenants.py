"""Two tenants that use the same ids and names for everything, in any order: each has what it would have alone."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from agent_service.core.errors import SessionConflictError, SessionNotFoundError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.models import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.canary.conftest import House

PAIRS = [
    ("acme", "acme2"),
    ("", "*"),
    ("", "="),
    ("=", "=="),
    ("*", "**"),
    ("a", "A"),
    ("a:b", "a"),
    ("%", "a"),
    ("_", "a"),
    ("é", "e\u0301"),
    ("ß", "ss"),
    ("a", "a "),
    ("'", "''"),
    ("a\\", "a"),
    ("None", "null"),
]
IDS = [UUID(int=number) for number in (1, 2, 3)]
USERS, EXTERNALS = ("ada", "bob"), ("thread-1", "thread-2")


@dataclass
class Kept:
    """What a tenant must have of a session."""

    user: str
    external: str | None
    title: str | None = None
    messages: list[tuple[int, str, str | None]] = field(default_factory=list)
    last_seq: int = 0
    version: int = 1
    status: str = "active"
    context: dict[str, int] = field(default_factory=dict)
    hidden: bool = False
    is_fork: bool = False


@dataclass
class Tenant:
    """A tenant and what it must have."""

    name: str
    sessions: dict[UUID, Kept] = field(default_factory=dict)

    def seen(self, id_: UUID) -> Kept:
        """Return a session that is not hidden, as the repository would."""
        kept = self.sessions.get(id_)
        if kept is None or kept.hidden:
            raise SessionNotFoundError
        return kept

    def taken(self, external: str | None) -> bool:
        """Whether some session has this external id."""
        return external is not None and any(each.external == external for each in self.sessions.values())

    def append(self, id_: UUID, content: str, client_id: str | None) -> int:
        """Return the number that a message has."""
        kept = self.seen(id_)
        known = [seq for seq, _, known in kept.messages if client_id is not None and known == client_id]
        if known:
            return known[0]
        kept.last_seq += 1
        kept.messages.append((kept.last_seq, content, client_id))
        return kept.last_seq


@dataclass
class World:
    """Two tenants of one database, and every id that either of them ever used."""

    house: House
    tenants: tuple[Tenant, Tenant]
    ids: list[UUID] = field(default_factory=lambda: list(IDS))
    said: int = 0

    def id(self, number: int) -> UUID:
        """Return one of the ids."""
        return self.ids[number % len(self.ids)]

    def text(self, tenant: Tenant) -> str:
        """Return a text that is like no other."""
        self.said += 1
        return f"{self.tenants.index(tenant)} says {self.said}"


Step = tuple[str, int, int, int, int]


async def create(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    external = (None, None, *EXTERNALS)[extra % 4]
    kept = Kept(USERS[choice % 2], external, title=world.text(tenant))
    free = id_ not in tenant.sessions and not tenant.taken(external)
    try:
        await repo.create(Session(id=id_, user_id=kept.user, external_id=external, title=kept.title))
    except SessionConflictError:
        assert not free
        return
    assert free
    tenant.sessions[id_] = kept


async def append(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    content, client_id = world.text(tenant), _client_id(tenant, id_, choice)
    expected = tenant.append(id_, content, client_id)
    added = await repo.add_message_to_session(id_, {"role": "user", "content": content}, client_id=client_id)
    assert added.seq == expected


async def batch(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    contents = [world.text(tenant) for _ in range(extra % 3 + 1)]
    client_ids = [_client_id(tenant, id_, choice + number) for number in range(len(contents))]
    expected = [tenant.append(id_, *each) for each in zip(contents, client_ids, strict=True)]
    messages = [{"role": "user", "content": content} for content in contents]
    assert [each.seq for each in await repo.add_messages_to_session(id_, messages, client_ids=client_ids)] == expected


def _client_id(tenant: Tenant, id_: UUID, choice: int) -> str | None:
    # What a fork inherits is not its own, so that a client id there would ask for a larger model.
    return None if tenant.seen(id_).is_fork else (None, "c1", "c2")[choice % 3]


async def pop(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.seen(id_)
    expected = kept.messages.pop()[1] if kept.messages else None
    popped = await repo.pop_message(id_)
    assert (popped and popped.content) == expected


async def rewrite(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.seen(id_)
    first, contents = extra % (kept.last_seq + 1) + 1, [world.text(tenant) for _ in range(choice % 3)]
    left = [each for each in kept.messages if each[0] < first]
    kept.version += left != kept.messages
    kept.messages[:] = left
    expected = [tenant.append(id_, content, None) for content in contents]
    stored = await repo.replace_suffix(id_, first, [{"role": "user", "content": each} for each in contents])
    assert [each.seq for each in stored] == expected


async def clear(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.seen(id_)
    count = len(kept.messages)
    kept.version += count > 0
    kept.messages.clear()
    assert await repo.clear_messages(id_) == count


async def fork(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.seen(id_)
    seq = extra % (kept.last_seq + 1)
    forked = await repo.fork(id_, seq)
    shown: list[tuple[int, str, str | None]] = [
        (number, content, None) for number, content, _ in kept.messages if number <= seq
    ]
    tenant.sessions[forked.id] = Kept(kept.user, None, kept.title, shown, seq, context=dict(kept.context), is_fork=True)
    world.ids.append(forked.id)


async def retitle(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.seen(id_)
    loaded = await repo.get(id_)
    assert loaded is not None
    loaded.title = kept.title = world.text(tenant)
    kept.version += 1
    assert (await repo.update(loaded)).version == kept.version


async def merge(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.seen(id_)
    kept.context |= {f"k{choice % 2}": extra}
    kept.version += 1
    assert await repo.update_session_context(id_, {f"k{choice % 2}": extra}) == kept.context


async def end(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    status = list(SessionStatus)[choice % 4]
    ids = {id_, world.id(extra)}
    seen = [tenant.sessions[each] for each in ids if each in tenant.sessions and not tenant.sessions[each].hidden]
    for kept in seen:
        kept.status, kept.version = status.value, kept.version + 1
    assert await repo.bulk_update_session_status(ids, status) == len(seen)


async def hide(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.sessions.get(id_)
    assert await repo.delete(id_) is (kept is not None and not kept.hidden)
    if kept is not None:
        kept.hidden = True


async def restore(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    kept = tenant.sessions.get(id_)
    assert await repo.restore(id_) is (kept is not None and kept.hidden)
    if kept is not None:
        kept.hidden = False


async def remove(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    assert await repo.delete(id_, hard=True) is (tenant.sessions.pop(id_, None) is not None)


async def erase(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    user = USERS[choice % 2]
    theirs = [id_ for id_, kept in tenant.sessions.items() if kept.user == user]
    assert await repo.erase_user(user) == len(theirs)
    for each in theirs:
        del tenant.sessions[each]


async def write(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    await repo._db.commit()
    async with SessionWriter(world.house.service, tenant_id="nobody") as writer:
        content = world.text(tenant)
        try:
            client_id = _client_id(tenant, id_, choice)
        except SessionNotFoundError:
            client_id = "c1"
        said = {"role": "user", "content": content}
        answer = await writer.append(id_, said, client_id=client_id, tenant_id=tenant.name)
    assert answer.seq == tenant.append(id_, content, client_id)


async def move(world: World, repo: SessionRepository, tenant: Tenant, id_: UUID, choice: int, extra: int) -> None:
    """Import what the other tenant exports; what it has under the same ids stays as it is."""
    user = USERS[choice % 2]
    (other,) = (each for each in world.tenants if each is not tenant)
    async with world.house.service.session() as db:
        lines = [line async for line in SessionRepository(db, other.name).export_user(user)]
    after = dict(tenant.sessions)
    possible = True
    for each in sorted(other.sessions):
        kept = other.sessions[each]
        if kept.user == user and each not in after:
            possible = possible and not Tenant("", after).taken(kept.external)
            after[each] = replace(kept, messages=list(kept.messages), context=dict(kept.context), is_fork=False)
    try:
        await repo.import_user(lines)
    except SessionConflictError:
        assert not possible
        await repo._db.rollback()
        return
    assert possible
    tenant.sessions = after


STEPS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        create,
        append,
        batch,
        pop,
        rewrite,
        clear,
        fork,
        retitle,
        merge,
        end,
        hide,
        restore,
        remove,
        erase,
        write,
        move,
    )
}
NUMBERS = st.integers(0, 11)
step = st.tuples(st.sampled_from(["create", *STEPS]), st.integers(0, 1), NUMBERS, NUMBERS, NUMBERS)


steps_of_two = given(pair=st.sampled_from(PAIRS), swapped=st.booleans(), steps=st.lists(step, min_size=4, max_size=30))
# Not shrunk: on a server that takes longer than a test may. A failure on SQLite is found by fewer steps.
few, many = (
    settings(max_examples=count, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
    for count in (6, 150)
)


@few
@steps_of_two
async def test_each_tenant_has_what_it_would_have_alone(
    house: House, pair: tuple[str, str], swapped: bool, steps: list[Step]
) -> None:
    await _live_together(house, pair, swapped, steps)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@many
@steps_of_two
async def test_each_tenant_has_what_it_would_have_alone_however_long(
    house: House, pair: tuple[str, str], swapped: bool, steps: list[Step]
) -> None:
    await _live_together(house, pair, swapped, steps)


async def _live_together(house: House, pair: tuple[str, str], swapped: bool, steps: list[Step]) -> None:
    names = pair[::-1] if swapped else pair
    world = World(house, (Tenant(names[0]), Tenant(names[1])))
    async with house.owner.session() as db:
        await db.execute(delete(Session.__table__))  # type: ignore[arg-type]

    for name, who, place, choice, extra in steps:
        tenant = world.tenants[who]
        async with house.service.session() as db:
            repo = SessionRepository(db, tenant.name)
            try:
                await STEPS[name](world, repo, tenant, world.id(place), choice, extra)
            except SessionNotFoundError:
                absent = tenant.sessions.get(world.id(place))
                assert absent is None or absent.hidden, f"{name} finds no {world.id(place)}"
                await db.rollback()
    for tenant in world.tenants:
        await _compare(world, tenant)


async def _compare(world: World, tenant: Tenant) -> None:
    async with world.house.service.session() as db:
        repo = SessionRepository(db, tenant.name)
        for id_ in world.ids:
            kept, found = tenant.sessions.get(id_), await repo.get_session_with_messages(id_)
            if kept is None or kept.hidden:
                assert found is None
                continue
            assert found is not None
            assert (found.user_id, found.external_id, found.title) == (kept.user, kept.external, kept.title)
            assert (found.status.value, found.version, found.context) == (kept.status, kept.version, kept.context)
            assert (found.last_seq, found.total_messages) == (kept.last_seq, len(kept.messages))
            contents = [(seq, content) for seq, content, _ in kept.messages]
            assert [(each.seq, each.content) for each in found.messages] == contents
            assert [(each.seq, each.content) for each in await repo.get_messages(id_, limit=1000)] == contents
        seen = {id_: kept for id_, kept in tenant.sessions.items() if not kept.hidden}
        for user in USERS:
            own = {id_: kept for id_, kept in seen.items() if kept.user == user}
            assert {each.id for each in await repo.get_user_sessions(user, active_only=False)} == own.keys()
            assert {each.id for each in (await repo.get_user_sessions_page(user)).items} == own.keys()
            stats = await repo.get_session_stats(user)
            assert stats.total_messages == sum(len(each.messages) for each in own.values())
            hits = {(hit.session.id, hit.seq) for hit in await repo.search_messages(user, "says", limit=1000)}
            assert hits == {(id_, seq) for id_, kept in own.items() for seq, _, _ in kept.messages}
        assert (await repo.get_session_stats()).total_sessions == len(seen)
        assert await repo.recount() == []
        for external in EXTERNALS:
            loaded = await repo.get_by_external_id(external)
            assert (loaded and loaded.id) == next(
                (id_ for id_, kept in seen.items() if kept.external == external), None
            )


async def test_a_tenants_name_has_one_form(house: House) -> None:
    """Names that look or sort alike are different tenants; none of them stands for all."""
    names = sorted({name for pair in PAIRS for name in pair})
    for name in names:
        async with house.service.session() as db:
            await SessionRepository(db, name).create(Session(user_id="ada", title=f"of {name!r}", external_id="one"))
    for name in names:
        async with house.service.session() as db:
            found = await SessionRepository(db, name).get_user_sessions("ada")
            assert [each.title for each in found] == [f"of {name!r}"]
