"""A context as a document: the dictionary that stores keep, and back."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agent_service.context.documents import read_document, write_document
from agent_service.core.errors import ContextStoreError, StateStoreError
from agent_service.state.evolution import schema_version_of, upgrade
from agent_service.state.interface import ContextT

__all__ = ["dump_context", "read_context", "stored_version"]


def dump_context(context: ContextT, model: type[ContextT]) -> dict[str, Any]:
    """Give the fields of a context, as they will be when they are read again; the version is still to be set.

    :raises StateStoreError: for what would not load again; it names the field.
    """
    try:
        fields = context.model_dump(by_alias=False, round_trip=True, warnings="none")
    except Exception as exc:  # serializers are the model's own code
        raise StateStoreError(f"{type(exc).__name__} while the fields of {model.__name__} were collected") from exc
    try:
        document = read_document(write_document({**fields, "schema_version": schema_version_of(model)}))
    except ContextStoreError as exc:
        raise StateStoreError(str(exc)) from exc
    _validated(model, document)
    return document


def read_context(model: type[ContextT], user_id: str, document: Mapping[str, Any]) -> ContextT:
    """Give the context that a stored document holds, upgraded.

    :raises StateStoreError: it does not validate, or belongs to another user.
    """
    context = _validated(model, upgrade(model, document))
    if context.user_id != user_id:
        raise StateStoreError(f"it belongs to user {context.user_id!a:.80}; somebody moved it")
    return context


def stored_version(document: Mapping[str, Any] | None) -> int:
    """Give the version of a stored document, 0 where there is none.

    :raises StateStoreError: it has none.
    """
    version = 0 if document is None else document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or (version < 1 and document is not None):
        raise StateStoreError(
            "what is stored has no version, so this store did not write it; delete_context() removes it"
        )
    return version


def _validated(model: type[ContextT], document: Mapping[str, Any]) -> ContextT:
    # Lax whatever the model says, because Enum members are stored as their values.
    try:
        return model.model_validate(document, strict=False, by_alias=False, by_name=True)
    except ValidationError as exc:
        raise StateStoreError(f"it is no valid {model.__name__}: {_reasons(exc)}") from exc
    except Exception as exc:  # validators are the model's own code
        raise StateStoreError(f"{type(exc).__name__} while it was validated as {model.__name__}") from exc


def _reasons(exc: ValidationError) -> str:
    """Fields and what is wrong with them, without their values."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    listed = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in errors[:5])
    return f"{listed:.500}" + (f" (and {len(errors) - 5} more)" if len(errors) > 5 else "")
