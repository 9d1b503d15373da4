"""Restore a model from its stored fields, without validating it.

A field whose stored value conforms to its annotation is restored as it is. Validators run for single fields only, and
in two cases: its class has changed and no upgrader handles that, or the stored value was made by the model's own
serializer. New fields get their defaults.
"""

import functools
import types
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, PlainSerializer, RootModel, ValidationError, WrapSerializer

from agent_service.core.errors import UndecodableError
from agent_service.core.values.instances import Parts, Rest, assembler, runs_code
from agent_service.core.values.rebuild import Rebuild, private_defaults, run_post_init
from agent_service.core.values.typed import Compiler, checks_of

__all__ = ["restore_model", "serialized_fields"]

M = TypeVar("M", bound=BaseModel)

_MOST_CLASSES = 1000
"""The most compiled models: a service may make classes as it runs."""


def restore_model(cls: type[M], data: Any, *, dumped: bool = False) -> M:
    """Return a model made of its fields, which may have their rests beside them (:class:`~.instances.Parts`).

    :param dumped: whether fields without a rest hold what the model's own serializers made of the values.
    :raises ValidationError: if the class does not take a field.
    :raises UndecodableError: if the data is not that of such a model.
    :raises Exception: whatever a validator raises.
    """
    try:
        restored: M = _restorer(cls, dumped)(data)
    except UndecodableError:
        validated = _validated(cls, stripped(data))  # so that the error names the field
        if dumped and cls.__pydantic_decorators__.model_serializers and type(data) is not Parts:
            return validated
        raise
    return restored


@functools.lru_cache(_MOST_CLASSES)
def _restorer(cls: type[BaseModel], dumped: bool) -> Rebuild:
    rebuild = _StoreCompiler(dumped).compile(cls, {})
    if rebuild is None:
        raise UndecodableError(f"the annotations of {cls.__qualname__} cannot be read")
    return rebuild


class _StoreCompiler(Compiler):
    """Compiles models that may have changed since they were stored; a member of a union must fit exactly."""

    def __init__(self, dumped: bool) -> None:
        super().__init__()
        self._dumped = dumped

    def model(self, cls: type[BaseModel], changing: Mapping[str, Rebuild], hints: Mapping[str, Any]) -> Rebuild:
        serialized = serialized_fields(cls) if self._dumped else frozenset[str]()
        return _ModelRestorer(cls, changing, hints, serialized)

    def union(self, members: tuple[Any, ...], arguments: Mapping[Any, Any]) -> Rebuild | None:
        some = [each for each in members if each is not None and each is not types.NoneType]
        return (super().union if len(some) < 2 else Compiler().union)(members, arguments)


class _ModelRestorer:
    """Restores one class of models.

    :param changing: functions that rebuild fields, by name.
    :param serialized: fields that need validation if the data has no rest.
    """

    def __init__(
        self,
        cls: type[BaseModel],
        changing: Mapping[str, Rebuild],
        hints: Mapping[str, Any],
        serialized: Collection[str],
    ) -> None:
        self._cls = cls
        self._changing = changing
        self._checks = checks_of(hints)
        self._assemble = assembler(cls)
        self._serialized = serialized

    def __call__(self, data: Any) -> Any:
        cls = self._cls
        if isinstance(data, cls):
            return data
        fields, rest = data if type(data) is Parts else (data, None)
        if issubclass(cls, RootModel):
            fields = {"root": fields}
        if type(fields) is not dict or (
            rest is None and self._serialized and cls.__pydantic_decorators__.model_serializers
        ):
            raise UndecodableError(f"stored data of type {type(fields).__name__} does not fit {cls.__qualname__}")
        values, others = self._known_fields(fields, rest)
        built = self._assembled(values, fields, rest)
        for name in others:
            vars(built)[name] = self._validated_field(built, name, fields)
        return built

    def _known_fields(self, fields: dict[str, Any], rest: Rest | None) -> tuple[dict[str, Any], list[str]]:
        """Return the values of the fields in the class's order, and the names of those that need validation."""
        cls = self._cls
        absent = () if rest is None else rest.get("absent", ())
        to_validate = self._serialized if rest is None else rest.get("serialized", ())
        values: dict[str, Any] = {}
        others: list[str] = []
        for name, field in cls.model_fields.items():
            if name in fields:
                values[name] = fields[name]
                if name in to_validate or not self._is_put(values, name, field.default):
                    others.append(name)
            elif name not in absent:
                if field.is_required():
                    raise UndecodableError(f"{cls.__qualname__}.{name} is missing")
                values[name] = field.get_default(call_default_factory=True, validated_data=values)
        extra = fields.keys() - cls.model_fields.keys()
        if extra and cls.model_config.get("extra") == "forbid":
            raise UndecodableError(f"{cls.__qualname__} has no field {min(extra)}")
        if cls.model_config.get("extra") == "allow":
            values |= {name: stripped(fields[name]) for name in fields if name in extra}
        return values, others

    def _is_put(self, into: dict[str, Any], name: str, default: Any) -> bool:
        """Replace a field's data by its value; return whether the value conforms to the annotation."""
        rebuild, check = self._changing.get(name), self._checks().get(name)
        try:
            value = into[name] = stripped(into[name]) if rebuild is None else rebuild(into[name])
        except UndecodableError:
            return False
        return check is None or value is default or check(value)

    def _assembled(self, values: dict[str, Any], fields: dict[str, Any], rest: Rest | None) -> BaseModel:
        cls, said = self._cls, rest or {}
        defaulted = [name for name in values if name not in fields]
        known = cls.__private_attributes__
        private = private_defaults(cls) | {
            name: each for name, each in said.get("private", {}).items() if name in known
        }
        kept = {name: each for name, each in said.items() if name in {"set", "attributes"}}
        unset = [*said.get("unset", ()), *defaulted]
        data = values["root"] if issubclass(cls, RootModel) else values
        built: BaseModel = self._assemble(data, {**kept, "private": private, "unset": unset})
        if rest is None and runs_code(cls):
            run_post_init(built)
        return built

    def _validated_field(self, built: BaseModel, name: str, fields: dict[str, Any]) -> Any:
        """Return what the validators of one field make of the stored value."""
        cls, stored = self._cls, stripped(fields)
        try:
            if issubclass(cls, RootModel):
                return vars(_validated(cls, stored["root"]))[name]
            if cls.model_config.get("frozen") or cls.model_fields[name].frozen:
                return vars(_validated(cls, stored))[name]
            probe = built.model_copy()
            cls.__pydantic_validator__.validate_assignment(probe, name, stored[name], strict=False, by_name=True)
        except ValidationError as exc:
            raise UndecodableError(f"the stored field {name} of {cls.__qualname__} is not of its type") from exc
        return vars(probe)[name]


def _validated(cls: type[M], fields: Any) -> M:
    # Lax even for a strict model, because Enum members are stored as their values.
    return cls.model_validate(fields, strict=False, by_alias=False, by_name=True)


@functools.lru_cache(_MOST_CLASSES)
def serialized_fields(cls: type[BaseModel]) -> frozenset[str]:
    """Return the fields that the model's own serializers may have changed when the first release stored them."""
    decorators = cls.__pydantic_decorators__
    names = {name for each in decorators.field_serializers.values() for name in each.info.fields}
    everything = bool(decorators.model_serializers) or "*" in names
    return frozenset(
        name
        for name, field in cls.model_fields.items()
        if everything or name in names or _mentions_serializer((field.annotation, *field.metadata))
    )


def _mentions_serializer(annotations: tuple[Any, ...]) -> bool:
    return any(
        isinstance(each, PlainSerializer | WrapSerializer)
        or _mentions_serializer((*getattr(each, "__metadata__", ()), *getattr(each, "__args__", ())))
        for each in annotations
    )


def stripped(value: Any) -> Any:
    """Return plain data without the rests that were attached to it."""
    if type(value) is Parts:
        value = value.data
    if type(value) is dict:
        return {key: stripped(each) for key, each in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(map(stripped, value))
    return value
