"""What a route declares about the requests it reads: what its responses may depend on, and where credentials are."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import APIKey
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

__all__ = ["declared_credentials", "declared_headers", "walk"]


def walk(dependant: Dependant) -> Iterator[Dependant]:
    """Yield a route's own declaration and those of all its dependencies."""
    yield dependant
    for each in dependant.dependencies:
        yield from walk(each)


def declared_headers(dependants: Iterable[Dependant]) -> set[str]:
    """Return the header fields, in lower case, that parameters are read from."""
    return {name.lower() for each in dependants for field in each.header_params for name in _names(field)}


def declared_credentials(dependants: Iterable[Dependant]) -> tuple[set[str], set[str]]:
    """Return the header fields and the query parameters that security schemes read, beside Authorization and Cookie."""
    headers, queries = set[str](), set[str]()
    for each in dependants:
        scheme: Callable[..., Any] | None = each.call
        model = scheme.model if isinstance(scheme, SecurityBase) else None
        if isinstance(model, APIKey):
            where = model.in_.value
            if where == "header":
                headers.add(model.name.lower())
            elif where == "query":
                queries.add(model.name)
    return headers, queries


def _names(field: Any) -> Iterator[str]:
    """Yield the header fields of a parameter: one, or those of the model that it is."""
    info = field.field_info
    dashes = getattr(info, "convert_underscores", True)
    model = info.annotation
    if isinstance(model, type) and issubclass(model, BaseModel):
        for name, each in model.model_fields.items():
            yield each.alias or (name.replace("_", "-") if dashes else name)
    else:
        yield field.alias if field.alias != field.name or not dashes else field.name.replace("_", "-")
