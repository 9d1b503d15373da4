"""The tags of a response: templates filled from the path and query parameters of its request.

A parameter is read as the endpoint's annotation says, so that ``/items/007`` has the tag ``item:7`` that
``@cache_invalidate(tags=["item:{item_id}"])`` fills in for the number 7.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from fastapi.dependencies.models import Dependant
from starlette.requests import Request

from agent_service.core.arguments import Template
from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache.loads.policy import check_tags
from agent_service.integrations.fastapi.responses.declared import request_names

__all__ = ["RouteTags"]


class RouteTags:
    """The tags of one route's responses.

    :param query: the query parameters that responses depend on; None: all.
    :raises CacheKeyError: for a template with a field that is no path or query parameter of the endpoint, or one that
        ``query`` leaves out: the load does not see it.
    """

    def __init__(
        self,
        templates: Sequence[str],
        endpoint: Callable[..., Any],
        dependant: Dependant,
        query: frozenset[str] | None,
    ) -> None:
        self._templates = [Template(each, endpoint) for each in templates]
        needed = {name for each in self._templates for name in each.parameters}
        known = {field.name: field for field in (*dependant.path_params, *dependant.query_params)}
        for name in needed - known.keys():
            raise CacheKeyError(
                f"tags of {endpoint.__qualname__} have the field {{{name}}}, which is no path or query parameter; "
                f"it has {', '.join(known) or 'none'}"
            )
        self._fields = [
            (field, request_names(name, field.field_info)) for name, field in known.items() if name in needed
        ]
        in_path = {field.name for field in dependant.path_params}
        for field, names in self._fields:
            if query is not None and field.name not in in_path and not query.issuperset(names):
                raise CacheKeyError(
                    f"tags of {endpoint.__qualname__} have the field {{{field.name}}}, which query= leaves out; "
                    f"add {', '.join(map(repr, names))} to query="
                )
        parameters = inspect.signature(endpoint).parameters.values()
        self._others = {each.name: None if each.default is each.empty else each.default for each in parameters}

    def of(self, request: Request) -> tuple[str, ...]:
        """Return the tags of a request.

        :raises CacheKeyError: for a parameter that is too long for a tag, or that the route refuses.
        """
        values = dict(self._others)
        for field, names in self._fields:
            values[field.name] = _value_of(field, names, request)
        return check_tags([each.fill((), values) for each in self._templates])


def _value_of(field: Any, names: Sequence[str], request: Request) -> Any:
    """Return what the endpoint is given for a parameter."""
    for source in (request.path_params, request.query_params):
        for name in names:
            if name in source:
                value, errors = field.validate(source[name], {}, loc=())
                if errors:
                    raise CacheKeyError(f"parameter {name} cannot be read")
                return value
    if field.field_info.is_required():
        raise CacheKeyError(f"parameter {names[0]} is missing")
    return field.field_info.get_default(call_default_factory=True)
