"""Convert a context to the document (a dictionary) that stores keep, and back."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agent_service.context.documents import read_document, write_document
from agent_service.core.errors import ContextStoreError, StateStoreError, UndecodableError
from agent_service.core.values.restoring import restore_model
from agent_service.state.differences import first_difference
from agent_service.state.evolution import schema_version_of, upgrade
from agent_service.state.fields import REST, attach, take_fields
from agent_service.state.interface import ContextT

__all__ = ["dump_context", "read_context", "stored_version"]


def dump_context(context: ContextT, model: type[ContextT]) -> dict[str, Any]:
    """Return the document of a context; the caller sets the version.

    :raises StateStoreError: if a field would not load as it is; it names the field.
    """
    current = schema_version_of(model)
    try:
        data = write_document({**take_fields(context, serialize=False), "schema_version": current})
    except ContextStoreError:
        try:
            data = write_document({**take_fields(context, serialize=True), "schema_version": current})
        except ContextStoreError as exc:
            raise StateStoreError(str(exc)) from exc
    difference = first_difference(context, _restored(model, read_document(data)))
    if difference is not None:
        raise StateStoreError(f"it would not load as it is: {difference}")
    return read_document(data)


def read_context(model: type[ContextT], user_id: str, document: Mapping[str, Any]) -> ContextT:
    """Return the context in a stored document, upgraded.

    :raises StateStoreError: if its fields are not those of the model, or it belongs to another user.
    """
    context = _restored(model, upgrade(model, document))
    if context.user_id != user_id:
        raise StateStoreError(f"it belongs to user {context.user_id!a:.80}; somebody moved it")
    return context


def stored_version(document: Mapping[str, Any] | None) -> int:
    """Return the version of a stored document; 0 if there is no document.

    :raises StateStoreError: if it has no version.
    """
    version = 0 if document is None else document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or (version < 1 and document is not None):
        raise StateStoreError(
            "what is stored has no version, so this store did not write it; delete_context() removes it"
        )
    return version


def _restored(model: type[ContextT], document: dict[str, Any]) -> ContextT:
    try:
        notes = document.pop(REST, [])
        return restore_model(model, attach(document, notes), dumped=True)
    except ValidationError as exc:
        raise StateStoreError(f"it is no valid {model.__name__}: {_reasons(exc)}") from exc
    except UndecodableError as exc:
        raise StateStoreError(f"it is no valid {model.__name__}: {exc}") from exc
    except Exception as exc:  # validators are the model's own code
        raise StateStoreError(f"{type(exc).__name__} while it was restored as {model.__name__}") from exc


def _reasons(exc: ValidationError) -> str:
    """Return the fields and what is wrong with them, without their values."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    listed = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in errors[:5])
    return f"{listed:.500}" + (f" (and {len(errors) - 5} more)" if len(errors) > 5 else "")
