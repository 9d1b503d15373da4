"""Rows of SQLAlchemy's mapped classes as cached results: with all their columns, or not at all."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, relationship
from sqlmodel import Field, Relationship, SQLModel

from agent_service.infrastructure.cache import cached
from agent_service.infrastructure.cache.memory.cache import InMemoryCache


class Base(MappedAsDataclass, DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str]
    players: Mapped[list["Player"]] = relationship(default_factory=list, repr=False)


class Player(Base):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"), default=None)
    team: Mapped["Team | None"] = relationship(default=None, overlaps="players")


class Crew(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    heroes: list["Hero"] = Relationship(back_populates="crew")


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    crew_id: int | None = Field(default=None, foreign_key="crew.id")
    crew: Crew | None = Relationship(back_populates="heroes")


@pytest.fixture
def session() -> Iterator[Session]:
    """A session of a database with a team of one and a crew of one."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Team(name="t", players=[Player(id=1, name="p")]), Crew(name="c", heroes=[Hero(name="h")])])
        session.commit()
    with Session(engine) as session:
        yield session
    engine.dispose()


async def cached_results(kind: type, value: Any) -> tuple[int, list[Any]]:
    """Call a decorated function three times; how often it ran, and what it gave."""
    ran = itertools.count()

    async def load() -> Any:
        next(ran)
        return value

    load.__annotations__["return"] = kind
    function = cached(ttl=60, cache=InMemoryCache())(load)
    results = [await function() for _ in range(3)]
    return next(ran), results


@pytest.mark.parametrize("kind", [Hero, Player, Team])
async def test_a_row_of_a_database_comes_back_detached_with_its_columns(session: Session, kind: Any):
    row = session.scalars(select(kind)).one()
    columns = {name: getattr(row, name) for name in inspect(kind).column_attrs.keys()}  # noqa: SIM118

    ran, results = await cached_results(kind, row)

    assert ran == 1
    for each in results:
        assert type(each) is kind
        assert {name: vars(each)[name] for name in columns} == columns
        assert inspect(each).detached
        assert getattr(each, "model_fields_set", None) == getattr(row, "model_fields_set", None)


async def test_a_row_that_comes_back_is_the_one_in_the_database_to_a_session(session: Session):
    row = session.scalars(select(Hero)).one()
    _, results = await cached_results(Hero, row)
    back = results[2]
    session.expunge_all()
    session.add(back)

    back.name = "renamed"
    session.commit()

    assert back.crew is not None
    assert back.crew.name == "c"
    assert [each.name for each in session.scalars(select(Hero))] == ["renamed"]


@pytest.mark.parametrize("make", [lambda: Hero(name="h"), lambda: Player(id=5), lambda: Team(name="t")])
async def test_a_row_that_no_database_has_comes_back_as_one(make: Any):
    row = make()

    ran, results = await cached_results(type(row), row)

    assert ran == 1
    assert all(inspect(each).transient for each in results)
    columns = {name: vars(row).get(name) for name in inspect(type(row)).column_attrs.keys()}  # noqa: SIM118
    assert [{name: vars(each).get(name) for name in columns} for each in results] == [columns] * 3


def loaded(session: Session) -> Any:
    hero = session.scalars(select(Hero)).one()
    assert hero.crew is not None
    return hero


def loaded_players(session: Session) -> Any:
    team = session.scalars(select(Team)).one()
    assert team.players
    return team


def expired(session: Session) -> Any:
    player = session.scalars(select(Player)).one()
    session.expire(player, ["name"])
    return player


def changed(session: Session) -> Any:
    player = session.scalars(select(Player)).one()
    player.name = "changed"
    return player


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (loaded, "its relationship crew holds rows"),
        (loaded_players, "its relationship players holds rows"),
        (expired, "its column name is not loaded"),
        (changed, "changes that were not flushed"),
    ],
)
async def test_a_row_that_is_more_or_less_than_its_columns_is_refused_with_the_reason(
    session: Session, make: Any, said: str, caplog: pytest.LogCaptureFixture
):
    row = make(session)

    ran, results = await cached_results(type(row), row)

    assert ran == 3
    assert all(each is row for each in results)
    assert len(caplog.messages) == 1
    assert said in caplog.text
    assert "return a model or dataclass that is no table" in caplog.text
