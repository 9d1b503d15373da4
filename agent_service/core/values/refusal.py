"""Why a value cannot be written: the exception between the parts of the codec, with the remedy in its text."""

from typing import Any

from agent_service.core.errors import CacheSerializationError

__all__ = ["NotWritable", "reason_for"]


class NotWritable(Exception):  # noqa: N818  (never leaves the codec, which turns it into a CacheSerializationError)
    """Writing the value would lose something; ``str()`` says what. The walk adds the path to the value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.steps: list[str] = []
        self.containers: list[int] = []

    def add_step(self, step: str, container: object) -> None:
        """Say where in a container the walk was."""
        self.steps.append(step)
        self.containers.append(id(container))

    def error(self) -> CacheSerializationError:
        """Return the error for the caller, which names the path."""
        reason = "it contains itself; break the cycle" if self._is_cycle() else str(self)
        steps = "".join(reversed(self.steps))
        path = steps if len(steps) <= 200 else f"{steps[:200]}..."
        return CacheSerializationError(f"value{path} cannot be stored: {reason}")

    def _is_cycle(self) -> bool:
        return len(set(self.containers)) < len(self.containers)


def reason_for(value: Any) -> str:
    """Return why a value of a class that the codec does not know is refused, and what to do."""
    kind = type(value)
    name = kind.__qualname__
    if callable(getattr(kind, "get_secret_value", None)):
        return (
            f"it is a {name}, and secrets are never stored in clear unless you agree; leave it out, or agree with "
            f"register_type({name}, dump={name}.get_secret_value, load={name})"
        )
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        return f"it is a {name}, which can be read only once; store a list of its items"
    return (
        f"it is a {kind.__module__}.{name}, which the codec does not know; "
        f"convert it to plain data or call register_type({name}, dump=..., load=...)"
    )
