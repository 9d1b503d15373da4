"""Schema evolution: upgrade stored contexts of older schema versions when they are loaded."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from agent_service.core.errors import ConfigurationError, StateStoreError
from agent_service.state.fields import REST
from agent_service.state.models import AgentContext

__all__ = ["Upgrader", "register_upgrader", "schema_version_of", "upgrade"]

Upgrader: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the stored fields of one schema version and returns those of the next."""

_upgraders: dict[tuple[type[AgentContext[Any, Any]], int], Upgrader] = {}


def register_upgrader(model: type[AgentContext[Any, Any]], from_version: int, function: Upgrader) -> None:
    """Register how stored contexts get from one schema version to the next; subclasses of the model inherit it.

    ::

        def split_name(fields):
            first, _, last = fields["metadata"].pop("name").partition(" ")
            return {**fields, "metadata": {**fields["metadata"], "first": first, "last": last}}

        register_upgrader(OrderContext, 1, split_name)

    The function must be plain, pure and fast: it runs at each load until the context is saved again. It may change the
    dictionary it gets. ``user_id``, ``version`` and ``schema_version`` stay as they are, whatever it does to them.

    :param from_version: the schema version that the function takes; it returns the next one.
    :raises ConfigurationError: if the model has no later version, or another function is registered already.
    """
    current = schema_version_of(model)
    if isinstance(from_version, bool) or not isinstance(from_version, int) or not 1 <= from_version < current:
        raise ConfigurationError(
            f"from_version must be an int from 1 to {current - 1}, got {from_version!r:.80}: schema_version of "
            f"{model.__name__} is {current}; raise its default first"
        )
    if _upgraders.setdefault((model, from_version), function) is not function:
        raise ConfigurationError(f"{model.__name__} has an upgrader from version {from_version} already; keep one")


def schema_version_of(model: type[AgentContext[Any, Any]]) -> int:
    """Return the schema version that a model saves.

    :raises ConfigurationError: if the model does not declare one.
    """
    if not (isinstance(model, type) and issubclass(model, AgentContext)):
        raise ConfigurationError(f"model must be a subclass of AgentContext, got {model!r:.80}")
    current = model.model_fields["schema_version"].default
    if isinstance(current, bool) or not isinstance(current, int) or current < 1:
        raise ConfigurationError(
            f"{model.__name__}.schema_version must have an int of at least 1 as its default, not {current!r:.80}"
        )
    return current


def upgrade(model: type[AgentContext[Any, Any]], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored fields, upgraded to the model's schema version.

    :raises StateStoreError: if they have a newer version, or an upgrader is missing or fails.
    """
    current, stored = schema_version_of(model), document.get("schema_version", 1)
    if isinstance(stored, bool) or not isinstance(stored, int) or not 1 <= stored <= current:
        raise StateStoreError(
            f"schema_version is {stored!r:.80} and {model.__name__} knows those from 1 to {current}; "
            "newer ones need the newer release that wrote them"
        )
    fields = dict(document)
    rest = fields.pop(REST, None)  # no field; data that is still in its place after the upgrade keeps its rest
    for version in range(stored, current):
        fields = _step(model, version, fields) | {
            name: document[name] for name in ("user_id", "version") if name in document
        }
    fields["schema_version"] = current
    return fields if rest is None else {**fields, REST: rest}


def _step(model: type[AgentContext[Any, Any]], version: int, fields: dict[str, Any]) -> dict[str, Any]:
    found = (_upgraders[each, version] for each in model.__mro__ if (each, version) in _upgraders)
    function = next(found, None)
    if function is None:
        raise StateStoreError(
            f"schema_version is {version} and nothing says how to bring it to {version + 1}; "
            f"call register_upgrader({model.__name__}, {version}, function)"
        )
    try:
        upgraded = function(fields)
    except Exception as exc:  # the function is the application's
        raise StateStoreError(
            f"the upgrader of {model.__name__} from version {version} failed: {type(exc).__name__}"
        ) from exc
    if not isinstance(upgraded, dict):
        raise StateStoreError(
            f"the upgrader of {model.__name__} from version {version} gave a {type(upgraded).__name__}, not a dict"
        )
    return upgraded
