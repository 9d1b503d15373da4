"""What a route declares about the requests it reads: what its responses may depend on, and where credentials are."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from fastapi import FastAPI, routing
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import APIKey
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

__all__ = ["declared_credentials", "declared_headers", "effective_declarations", "request_names", "walk"]


def effective_declarations(app: FastAPI, route: APIRoute) -> list[Dependant]:
    """Return what a route declares together with the application and the routers that include it, for each inclusion.

    Where FastAPI copies a route that is included, as earlier releases do, its own declaration is complete.
    """
    contexts = getattr(routing, "iter_route_contexts", None)
    found = [each.dependant for each in contexts(app.routes) if each.original_route is route] if contexts else []
    return found or [route.dependant]


def walk(dependant: Dependant) -> Iterator[Dependant]:
    """Yield a route's own declaration and those of all its dependencies."""
    yield dependant
    for each in dependant.dependencies:
        yield from walk(each)


def declared_headers(dependants: Iterable[Dependant]) -> set[str]:
    """Return the header fields, in lower case, that parameters are read from."""
    return {name.lower() for each in dependants for field in each.header_params for name in _header_names(field)}


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


def request_names(name: str, info: FieldInfo, *, dashes: bool = False) -> list[str]:
    """Return the names by which FastAPI looks for a parameter in a request.

    :param dashes: whether a header without a name of its own is written with dashes.
    """
    if isinstance(info.validation_alias, AliasChoices):
        choices = [each for each in info.validation_alias.choices if isinstance(each, str)]
        if len(choices) == len(info.validation_alias.choices):
            return choices
    alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias or name
    return [alias.replace("_", "-") if dashes and alias == name else alias]


def _header_names(field: Any) -> Iterator[str]:
    """Yield the header fields of a parameter: its own, or those of the model that it is."""
    info = field.field_info
    dashes = getattr(info, "convert_underscores", True)
    models = [each for each in (info.annotation, *get_args(info.annotation)) if _is_model(each)]
    for model in models:
        config = model.model_config
        by_name = config.get("validate_by_name", config.get("populate_by_name")) or not config.get(
            "validate_by_alias", 1
        )
        for name, each in model.model_fields.items():
            yield from request_names(name, each, dashes=getattr(each, "convert_underscores", dashes))
            if by_name:
                yield name.replace("_", "-") if dashes else name
    if not models:
        yield from request_names(field.name, info, dashes=dashes)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
