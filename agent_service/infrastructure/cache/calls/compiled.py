"""The wrapper of a decorated function, compiled with the function's own signature.

A hit in memory should cost little more than the call of a coroutine. Three things make it so, and they are the reason
for generated code (as in dataclasses): arguments arrive bound by the interpreter itself, because the wrapper has the
function's own parameters; their identity is a tuple of types and values, so that ``1``, ``True`` and ``"1"`` differ
without a key being made; and that tuple leads straight to the entry in the table, which knows when it is dead.

Only arguments of a few types (``SCALARS`` of ``keys.py``) are ever remembered, by their exact type, so a lookup that
meets anything else, hashable or not, finds nothing and takes the long way.
"""

import inspect
from collections.abc import Awaitable, Callable
from sys import getsizeof
from typing import Any

from agent_service.infrastructure.cache.loads.context import CallContext
from agent_service.infrastructure.cache.table import Entry, HitCounter, MemoryStore

__all__ = ["HotPath", "compile_wrapper"]

_MOST_BYTES = 4 << 20

_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}

_TEMPLATE = """
def make(__aliases, __slow, __restore, __defaults, __seen):
    __now = __touch = __counters = None
    __hits = 0
    def __bind(now, touch, counters):
        nonlocal __now, __touch, __counters
        __now, __touch, __counters = now, touch, counters
    def __count():
        return __hits
    async def wrapper({parameters}):
        nonlocal __hits
        __identity = {identity}
        try:
            __entry = __aliases[__identity]
            __value = __entry.value
            if __entry.settled_until > __now(){unless}:
                __result = {result}
                __touch(__entry.key)
                __counters.hits += 1
                __hits += 1
                return __result
        except Exception:
            pass
        return await __slow(__identity{arguments})
    return wrapper, __bind, __count
"""


class HotPath:
    """Where a compiled wrapper looks first: argument tuples, and the live entries they lead to.

    It is bound to the table it was last used with. When that table is closed all its entries are dead, so the next call
    takes the long way and :meth:`remember` binds the path to the table of then.

    At most two argument tuples for each entry that the table may hold are remembered, and 4 MiB of argument values.

    :param looks_at_tags: whether it leads to entries with tags, which costs a hit a look at their tokens.
    """

    def __init__(self, *, looks_at_tags: bool = False) -> None:
        self.looks_at_tags = looks_at_tags
        self.aliases: dict[tuple[object, ...], Entry] = {}
        self.bind: Callable[..., None] | None = None
        self.hits: Callable[[], int] = int
        self._store: MemoryStore | None = None
        self._bytes = 0

    def remember(self, identity: tuple[object, ...], key: str, store: MemoryStore, counters: HitCounter) -> None:
        """Lead this identity to the live entry of ``key``, if there is one."""
        if self.bind is None:
            return
        size = _size(identity)
        entry = store.live(key)
        if entry is None or (entry.tokens and not self.looks_at_tags):
            return
        if self._store is not store:
            self.aliases.clear()
            self._bytes = 0
            self.bind(store.monotonic, store.touch, counters)
            self._store = store
        elif len(self.aliases) >= 2 * store.max_entries or self._bytes > _MOST_BYTES:
            self._forget_dead(store)
        if identity not in self.aliases:
            self._bytes += size
        self.aliases[identity] = entry

    def _forget_dead(self, store: MemoryStore) -> None:
        now = store.monotonic()
        known = self.aliases.copy()  # in one step: another thread may add to it meanwhile
        live = {identity: entry for identity, entry in known.items() if entry.settled_until > now}
        self.aliases.clear()  # in place: the wrapper holds this very dict
        self._bytes = 0
        size = sum(map(_size, live))
        if len(live) < store.max_entries * 3 // 2 and size < _MOST_BYTES * 3 // 4:
            self.aliases.update(live)
            self._bytes = size


def _size(identity: tuple[object, ...]) -> int:
    return sum(map(getsizeof, identity[1::2]))  # types stand between the values


def compile_wrapper(
    signature: inspect.Signature,
    identifying: tuple[str, ...],
    context: CallContext,
    slow: Callable[..., Awaitable[Any]],
    restore: Callable[[Any], Any] | None,
    *,
    path: HotPath,
) -> Callable[..., Any] | None:
    """Compile the wrapper, or give None for a signature with ``*args`` or ``**kwargs``.

    :param identifying: names of the parameters that tell calls apart.
    :param context: the context variables that do.
    :param slow: called with the types and values of the identifying arguments and context variables, in turn, and all
        arguments, when the short way finds nothing.
    :param restore: rebuilds the annotated type from the plain value; None: the plain value is given.
    """
    given = signature.parameters.values()
    if any(each.kind in _VARIADIC or each.name.startswith("__") for each in given):
        return None
    defaults = {each.name: each.default for each in given if each.default is not each.empty}
    plain = "__value if __entry.copy is None else __entry.copy(__value)"
    identity = [f"{name}.__class__, {name}" for name in identifying] + ["*__seen()"] * bool(context)
    source = _TEMPLATE.format(
        parameters=_parameters(list(given)),
        arguments="".join(f", {e.name}={e.name}" if e.kind is e.KEYWORD_ONLY else f", {e.name}" for e in given),
        identity=", ".join(identity) + "," if identity else "()",
        result=plain if restore is None else f"__restore({plain})",
        unless=" and not __entry.outdated()" if path.looks_at_tags else "",
    )
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102 - the source is made of parameter names alone
    wrapper: Callable[..., Any]
    wrapper, path.bind, path.hits = scope["make"](path.aliases, slow, restore, defaults, _seen(context))
    return wrapper


def _seen(context: CallContext) -> Callable[[], list[object]]:
    """Return a function that gives types and values of the context variables, in turn."""
    return lambda: [part for value in context.values() for part in (type(value), value)]


def _parameters(given: list[inspect.Parameter]) -> str:
    """Write a parameter list down; defaults are looked up by name, so that no value is turned into source."""
    parts = [
        f"{each.name}=__defaults[{each.name!r}]" if each.default is not each.empty else each.name for each in given
    ]
    kinds = [each.kind for each in given]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        parts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    if inspect.Parameter.POSITIONAL_ONLY in kinds:
        parts.insert(kinds.count(inspect.Parameter.POSITIONAL_ONLY), "/")
    return ", ".join(parts)
