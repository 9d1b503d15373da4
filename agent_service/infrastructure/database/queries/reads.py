"""Reads of whole rows without the ORM's unit of work, for lists and histories.

The ORM builds a statement, a cache key and a loader for each call, and passes each row through several functions. Here
a statement is compiled once, and a row becomes an object by one loop. What is returned is what the ORM would return:
objects of the session's identity map, refreshed as ``populate_existing`` does, after pending changes were flushed.
Where somebody listens to the ORM's loading, or mapped more than the package did, the ORM does it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Dialect, Enum, Select, TextClause, Uuid, inspect
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_state

from agent_service.core.fixed import fixed
from agent_service.infrastructure.database.values.documents import read_json
from agent_service.infrastructure.database.values.types import Identifier, JsonText, UtcDateTime
from agent_service.infrastructure.database.values.validation import as_identifier

__all__ = ["Prepared", "Read", "load_by_orm"]

T = TypeVar("T")
Decoder = Callable[[Any], Any]

_LAZY: Final = frozenset({"select", "raise", "raise_on_sql", "noload", "write_only", "dynamic"})


class _Compiled(NamedTuple):
    sql: str
    parameters: list[tuple[str, Decoder | None]]
    """Each parameter's name in order, and what its type does with a value."""
    constants: dict[str, Any]


class Prepared:
    """A statement about one mapped class, compiled once for each dialect.

    :param entity: the class; a session may have a bind of its own for it.
    :param statement: has a named parameter for whatever differs from call to call.
    :param plain: what is sent in its place.
    """

    def __init__(self, entity: type[Any], statement: Select[Any], plain: TextClause | None = None) -> None:
        self._mapper = inspect(entity)
        self._statement = statement
        self._sent = statement if plain is None else plain
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, db: Session, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run the statement in the session's transaction and return its rows as the driver gives them."""
        if db.autoflush:
            db.flush()
        connection = db.connection(bind_arguments={"mapper": self._mapper})
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name) or self._compile(dialect)
        given = {**compiled.constants, **values}
        parameters = [given[name] if encode is None else encode(given[name]) for name, encode in compiled.parameters]
        return connection.exec_driver_sql(compiled.sql, tuple(parameters)).all()

    def scalar(self, db: Session, values: Mapping[str, Any]) -> Any:
        """Return the one value that the statement gives."""
        if db.dispatch.do_orm_execute:
            return db.execute(self._statement, values).scalar_one()
        ((value,),) = self.rows(db, values)
        return value

    def _compile(self, dialect: Dialect) -> _Compiled:
        # The engine may have been given another parameter style; its driver takes the one that its dialect begins with.
        compiled: Any = self._sent.compile(dialect=type(dialect)())
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        parameters = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup
        ]
        self._compiled[dialect.name] = made = _Compiled(str(compiled), parameters, constants)
        return made


class Read(Generic[T]):
    """A query for objects of one mapped class.

    :param entity: the class.
    :param statement: an ORM statement for its objects, and for nothing else or one column beside them.
    :param plain: the same in text, for the table's columns in their order, where it was not built of expressions.
    """

    def __init__(self, entity: type[T], statement: Any, plain: TextClause | None = None) -> None:
        self.statement: Select[Any] = statement
        self._entity = entity
        self._mapper: Mapper[T] = inspect(entity)
        self._columns = list(self._mapper.columns)
        self._names = [self._mapper.get_property_by_column(each).key for each in self._columns]
        self._key = [self._mapper.get_property_by_column(each).key for each in self._mapper.primary_key]
        self._prepared = Prepared(entity, self._of_columns() if plain is None else statement, plain)
        self._decoders: dict[str, list[tuple[str, Decoder]]] = {}

    def objects(self, db: Session, values: Mapping[str, Any]) -> list[T]:
        """Return the objects as the database has them now, even those that were loaded before."""
        return [found for found, _ in self.pairs(db, values)]

    def pairs(self, db: Session, values: Mapping[str, Any]) -> list[tuple[T, Any]]:
        """Return the objects, each with the column beside it, or None."""
        if self._needs_orm(db):
            return load_by_orm(db, self.statement, values)
        rows = self._prepared.rows(db, values)
        dialect = db.connection(bind_arguments={"mapper": self._mapper}).dialect
        decoders = self._decoders.get(dialect.name) or self._find_decoders(dialect)
        width, names, load = len(self._names), self._names, self._load
        found_rows = []
        for row in rows:
            attributes = dict(zip(names, row, strict=False))
            for name, decode in decoders:
                value = attributes[name]
                if value is not None:
                    attributes[name] = decode(value)
            found_rows.append((load(db, attributes), row[width] if len(row) > width else None))
        return found_rows

    def _of_columns(self) -> Select[Any]:
        beside = list(self.statement.selected_columns)[len(self._columns) :]
        return self.statement.with_only_columns(*self._columns, *beside, maintain_column_froms=True)

    def _needs_orm(self, db: Session) -> bool:
        mapper = self._mapper
        loading: Any = mapper.class_manager.dispatch
        session: Any = db.dispatch
        return bool(
            session.do_orm_execute
            or session.loaded_as_persistent
            or loading.load
            or loading.refresh
            or len(mapper.column_attrs) != len(self._columns)
            or any(each.lazy not in _LAZY for each in mapper.relationships)
        )

    def _load(self, db: Session, attributes: dict[str, Any]) -> T:
        # As sqlalchemy.orm.loading does, for a query with populate_existing.
        known: Any = db.identity_map
        key = self._entity, tuple([attributes[name] for name in self._key]), None
        state: Any = known.fast_get_state(key)
        found: Any = None if state is None else state.obj()
        if found is None:
            found = self._mapper.class_manager.new_instance()
            found.__dict__.update(attributes)
            state = instance_state(found)
            state.key, state.session_id = key, db.hash_key
            known.add(state)
        else:
            known_values = found.__dict__
            known_values.update(attributes)
            for each in self._mapper.relationships:
                known_values.pop(each.key, None)
            state._commit_all(known_values, known)  # noqa: SLF001
        loaded: T = found
        return loaded

    def _find_decoders(self, dialect: Dialect) -> list[tuple[str, Decoder]]:
        found = [(name, _decoder(column, dialect)) for name, column in zip(self._names, self._columns, strict=True)]
        self._decoders[dialect.name] = made = [(name, decode) for name, decode in found if decode is not None]
        return made


def load_by_orm(db: Session, statement: Select[Any], values: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return what :meth:`Read.pairs` does, of any ORM statement."""
    found = db.execute(statement, values, execution_options={"populate_existing": True})
    return [(row[0], row[1] if len(row) > 1 else None) for row in found]


def _decoder(column: Any, dialect: Dialect) -> Decoder | None:
    """Return what the column's type makes of a value that is not NULL; None where it is given as it is."""
    kind, embedded = column.type, dialect.name == "sqlite"
    if isinstance(kind, UtcDateTime):
        return _moment_of_text if embedded else _moment
    if isinstance(kind, JsonText):
        return _document
    if isinstance(kind, Identifier):
        return as_identifier
    if isinstance(kind, Uuid):
        return _last_remembered(UUID) if embedded else None
    if isinstance(kind, Enum):
        return {each.value: each for each in kind.enum_class or ()}.__getitem__
    decoder: Decoder | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return decoder


def _last_remembered(decode: Decoder) -> Decoder:
    """Decode a value that comes several times running, as the session of messages does, once."""
    last: tuple[Any, Any] = None, None

    def decoded(value: Any) -> Any:
        nonlocal last
        known = last
        if known[0] != value:
            last = known = value, decode(value)
        return known[1]

    return decoded


def _moment_of_text(text: str) -> datetime:
    return _moment(datetime.fromisoformat(text))


def _moment(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    # Without a time zone: all that SQLite keeps, and the ends of the calendar as asyncpg gives them.
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _document(stored: Any) -> Any:
    # asyncpg gives it decoded, as SQLAlchemy told it to.
    return fixed(stored if isinstance(stored, dict) else read_json(stored))
