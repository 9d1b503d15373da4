"""A context made of its stored fields: restored, not validated.

A field that holds what its annotation says is put back as it is. Validators run for a field alone, and only where its
class has changed since in a way that nobody wrote an upgrader for, or where what is stored is what a serializer of the
model's own made of a value. New fields get their defaults.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent_service.core.conformity import Check
from agent_service.core.errors import UndecodableError
from agent_service.core.instances import Assemble, Parts, Rest, assembler, runs_code
from agent_service.core.rebuild import Rebuild, private_defaults, run_post_init
from agent_service.core.typed import Compiler, checks_of
from agent_service.state.fields import serialized_fields, stripped

__all__ = ["restore_model"]

M = TypeVar("M", bound=BaseModel)


def restore_model(cls: type[M], data: Any) -> M:
    """Make a model of its fields, with the rests that :func:`~agent_service.state.fields.attach` put beside them.

    :raises ValidationError: for fields that the class does not take.
    :raises Exception: whatever a validator raises.
    """
    try:
        restored: M = _restorer(cls)(data)
    except UndecodableError:
        plain = stripped(data)
        validated = _validated(cls, plain)  # says which field it is
        if cls.__pydantic_decorators__.model_serializers and not isinstance(data, Parts):
            return validated
        raise
    return restored


@functools.cache
def _restorer(cls: type[BaseModel]) -> Rebuild:
    rebuild = _StateCompiler().compile(cls, {})
    if rebuild is None:
        raise UndecodableError(f"the annotations of {cls.__qualname__} cannot be read")
    return rebuild


class _StateCompiler(Compiler):
    """Compiles models that may have changed since they were stored; several in one union must fit exactly."""

    def model(self, cls: type[BaseModel], changing: Mapping[str, Rebuild], hints: Mapping[str, Any]) -> Rebuild:
        return functools.partial(_model, cls, changing, checks_of(hints), assembler(cls))

    def union(self, members: tuple[Any, ...], arguments: Mapping[Any, Any]) -> Rebuild | None:
        rebuilt = [each for each in members if self.compile(each, arguments) is not None]
        return super().union(members, arguments) if len(rebuilt) < 2 else Compiler().union(members, arguments)


def _model(
    cls: type[BaseModel],
    changing: Mapping[str, Rebuild],
    checks: Callable[[], Mapping[str, Check]],
    assemble: Assemble,
    data: Any,
) -> Any:
    if isinstance(data, cls):
        return data
    fields, rest = data if type(data) is Parts else (data, None)
    if cls.__pydantic_root_model__:
        return assemble(changing["root"](fields) if "root" in changing else fields, {})
    if type(fields) is not dict or (rest is None and cls.__pydantic_decorators__.model_serializers):
        raise UndecodableError(f"stored data of type {type(fields).__name__} does not fit {cls.__qualname__}")
    values, others = _known_fields(cls, changing, checks(), fields, rest)
    built = _assembled(cls, assemble, values, fields, rest)
    for name in others:
        vars(built)[name] = _validated_field(cls, built, name, fields)
    return built


def _known_fields(
    cls: type[BaseModel],
    changing: Mapping[str, Rebuild],
    checks: Mapping[str, Check],
    fields: dict[str, Any],
    rest: Rest | None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the fields in the class's order, and the names of those that need validation."""
    to_validate = serialized_fields(cls) if rest is None else rest.get("serialized", ())
    absent = () if rest is None else rest.get("absent", ())
    values: dict[str, Any] = {}
    others: list[str] = []
    for name, field in cls.model_fields.items():
        if name not in fields:
            if name in absent:
                continue
            if field.is_required():
                raise UndecodableError(f"{cls.__qualname__}.{name} is missing")
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
            continue
        values[name] = fields[name]
        if name in to_validate or not _is_put(values, name, changing.get(name), checks.get(name), field.default):
            others.append(name)
    extra = fields.keys() - cls.model_fields.keys()
    if extra and cls.model_config.get("extra") == "forbid":
        raise UndecodableError(f"{cls.__qualname__} has no field {min(extra)}")
    if cls.model_config.get("extra") == "allow":
        values |= {name: each for name, each in fields.items() if name in extra}
    return values, others


def _is_put(into: dict[str, Any], name: str, rebuild: Rebuild | None, check: Check | None, default: Any) -> bool:
    """Put what a field's value stands for in its place, and return whether it is what the annotation says."""
    try:
        value = into[name] = into[name] if rebuild is None else rebuild(into[name])
    except UndecodableError:
        return False
    return check is None or value is default or check(value)


def _assembled(
    cls: type[BaseModel], assemble: Assemble, values: dict[str, Any], fields: dict[str, Any], rest: Rest | None
) -> BaseModel:
    defaulted = [name for name in values if name not in fields]
    kept = {name: each for name, each in (rest or {}).items() if name in {"set", "attributes"}}
    stored = (rest or {}).get("private", {})
    known = cls.__private_attributes__
    private = private_defaults(cls) | {name: each for name, each in stored.items() if name in known}
    unset = [*(rest or {}).get("unset", ()), *defaulted]
    built: BaseModel = assemble(values, {**kept, "private": private, "unset": unset})
    if rest is None and runs_code(cls):
        run_post_init(built)
    return built


def _validated_field(cls: type[BaseModel], built: BaseModel, name: str, fields: dict[str, Any]) -> Any:
    """Return what the validators of one field make of what is stored."""
    try:
        if cls.model_config.get("frozen") or cls.model_fields[name].frozen:
            return getattr(_validated(cls, stripped(fields)), name)
        probe = built.model_copy()
        cls.__pydantic_validator__.validate_assignment(probe, name, stripped(fields[name]), strict=False, by_name=True)
    except ValidationError as exc:
        raise UndecodableError(f"the stored field {name} of {cls.__qualname__} is not of its type") from exc
    return vars(probe)[name]


def _validated(cls: type[M], fields: Any) -> M:
    # Lax whatever the model says, because Enum members are stored as their values.
    return cls.model_validate(fields, strict=False, by_alias=False, by_name=True)
