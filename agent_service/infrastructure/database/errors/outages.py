"""Which errors the log tells as an outage of a database."""

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_service.core.availability import Availability
from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.errors.translation import TOO_SLOW_STATE

__all__ = ["tell_outage"]


def tell_outage(availability: Availability, error: DatabaseError) -> bool:
    """Have the log tell an outage if this error is one; False: whoever works in the background tells what it is.

    A server serves where this process has all connections of its pool in use, and where it ended a statement that took
    too long.
    """
    cause = error.__cause__
    state = getattr(getattr(cause, "orig", cause), "sqlstate", None)
    serves = isinstance(cause, PoolTimeoutError) or state == TOO_SLOW_STATE
    outage = isinstance(error, DatabaseUnavailableError) and not serves
    if outage:
        availability.failed(error)
    return outage
