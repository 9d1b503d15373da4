"""What all tables share."""

from typing import Any, Final

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import DeclarativeBase

from agent_service.infrastructure.database.naming.names import MARK

__all__ = ["Base"]


def _own_name(_constraint: Any, table: Table) -> str:
    return table.name.removeprefix(MARK)


_CONVENTION: Final[dict[str, Any]] = {
    "own_name": _own_name,
    "pk": f"{MARK}pk_%(own_name)s",
    "fk": f"{MARK}fk_%(own_name)s_%(column_0_name)s",
    "ck": f"{MARK}ck_%(own_name)s_%(constraint_name)s",
}


class Base(DeclarativeBase):
    """Base of the package's tables; ``Base.metadata`` is what the migrations must add up to.

    All names are written as :class:`~agent_service.infrastructure.database.naming.names.TableNames` reads them.
    """

    metadata = MetaData(naming_convention=_CONVENTION)
