"""The tags of a response: templates filled from the path and query parameters of its request.

A parameter is read as the endpoint's annotation says, so that ``/items/007`` has the tag ``item:7`` that
``@cache_invalidate(tags=["item:{item_id}"])`` fills in for the number 7.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from fastapi.dependencies.models import Dependant
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from agent_service.core.arguments import Template
from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache.loads.policy import check_tags

__all__ = ["RouteTags"]


class RouteTags:
    """The tags of one route's responses.

    :raises CacheKeyError: for a template with a field that is no path or query parameter of the endpoint.
    """

    def __init__(self, templates: Sequence[str], endpoint: Callable[..., Any], dependant: Dependant) -> None:
        self._templates = [Template(each, endpoint) for each in templates]
        needed = {name for each in self._templates for name in each.parameters}
        known = {field.name: field.alias for field in (*dependant.path_params, *dependant.query_params)}
        for name in needed - known.keys():
            raise CacheKeyError(
                f"tags of {endpoint.__qualname__} have the field {{{name}}}, which is no path or query parameter; "
                f"it has {', '.join(known) or 'none'}"
            )
        hints = get_type_hints(endpoint, include_extras=True) if needed else {}
        self._fields = [(name, known[name], TypeAdapter(hints.get(name, str))) for name in sorted(needed)]
        parameters = inspect.signature(endpoint).parameters.values()
        self._others = {each.name: None if each.default is each.empty else each.default for each in parameters}

    def of(self, request: Request) -> tuple[str, ...]:
        """Return the tags of a request.

        :raises CacheKeyError: for a parameter that is too long for a tag.
        """
        values, path = dict(self._others), request.path_params
        for name, alias, adapter in self._fields:
            given = path[alias] if alias in path else request.query_params.get(alias)
            if given is not None:
                values[name] = _validated(adapter, given)
        return check_tags([each.fill((), values) for each in self._templates])


def _validated(adapter: TypeAdapter[Any], given: Any) -> Any:
    try:
        return adapter.validate_python(given)
    except ValidationError:
        return given  # the route refuses it, and its answer is not stored
