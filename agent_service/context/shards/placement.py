"""Where a key belongs among shards, and where it may still be while shards change."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from agent_service.context.interface import ContextStore, Key
from agent_service.context.keys import encode_key
from agent_service.context.moving import Shard
from agent_service.context.outside_store import as_store
from agent_service.core.errors import ConfigurationError, ContextStoreError

__all__ = ["Placement", "Search"]


class _Layout:
    """The names among which keys are spread."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._weights = [(name, blake2b(name.encode() + b"\x00", digest_size=8)) for name in sorted(self.names)]

    def route(self, text: str) -> str:
        """Return the name of the highest weight for a key."""
        data = text.encode()
        best, chosen = b"", self._weights[0][0]
        for name, start in self._weights:
            weight = start.copy()
            weight.update(data)
            digest = weight.digest()
            if digest > best:
                best, chosen = digest, name
        return chosen


class Search:
    """What one rebalance knows of keys away from home."""

    def __init__(self, placement: "Placement") -> None:
        self.found: Mapping[str, Sequence[str]] | None = None
        """The names of the shards that listed a key, by its text; None: nothing is known yet."""
        self._placement = placement

    def take(self, listed: Mapping[str, Sequence[Key]]) -> tuple[list[Key], list[Key]]:
        """Take in what each shard listed; return the keys away from home, and those at home that may have moved."""
        away: dict[str, tuple[Key, list[str]]] = {}
        arrived: dict[str, Key] = {}
        for name, keys in listed.items():
            store = self._placement.shards[name].store
            for key in keys:
                text = encode_key(key)
                if store is not self._placement.home_of(text).store:
                    away.setdefault(text, (key, []))[1].append(name)
                elif self._placement.changed and self._placement.previous_of(text).store is not store:
                    arrived[text] = key
        self.found = {text: names for text, (_, names) in away.items()}
        return [key for key, _ in away.values()], [key for text, key in arrived.items() if text not in away]


class Placement:
    """Which shard is a key's home, and which others may still hold it.

    :param shards: stores by name, or what others wrote that has the calls of one.
    :param previous: the shards of before, if they were others.
    :raises ConfigurationError: for no shards, names that are no text, one store under two names, or two over one place.
    """

    def __init__(self, shards: Mapping[str, Any], previous: Mapping[str, Any] | None) -> None:
        stores = _stores("shards", shards)
        if previous is not None:
            previous = _stores("previous", previous)
            for name in previous.keys() & stores.keys():
                if previous[name] is not stores[name]:
                    raise ConfigurationError(
                        f"the shard {name!r} has one store in shards and another in previous; give the same object in "
                        "both, or another name where it is another store"
                    )
        self.stores = stores
        self.shards = {name: Shard(name, store) for name, store in {**(previous or {}), **stores}.items()}
        """All by name, those included that are only in ``previous``."""
        _require_places_of_their_own(self.shards)
        self._layout = _Layout(stores)
        self._previous = _Layout(stores if previous is None else previous)
        self._searches: list[Search] = []

    @property
    def changed(self) -> bool:
        """Whether the shards of before were others."""
        return self._previous.names != self._layout.names

    def home_of(self, text: str) -> Shard:
        """Return the shard that a key belongs to."""
        return self.shards[self._layout.route(text)]

    def previous_of(self, text: str) -> Shard:
        """Return the shard that a key belonged to before."""
        return self.shards[self._previous.route(text)]

    def of(self, text: str) -> tuple[Shard, Sequence[Shard]]:
        """Return a key's home, and the other shards in which it may still be."""
        home = self.home_of(text)
        if not self.changed and not self._searches:
            return home, ()
        names = {self._previous.route(text)}
        for search in self._searches:
            if search.found is not None:
                names.update(search.found.get(text, ()))
            elif not self.changed:
                names.update(self.shards)
        return home, [self.shards[name] for name in sorted(names) if self.shards[name].store is not home.store]

    @contextmanager
    def searching(self) -> Iterator[Search]:
        """Take into account what a rebalance finds until the block ends; without ``previous``, at first every shard."""
        search = Search(self)
        self._searches.append(search)
        try:
            yield search
        finally:
            self._searches.remove(search)

    def listing_order(self) -> tuple[set[str], set[str]]:
        """Return the shards to list first, and those to list when they have answered, because keys may move there."""
        everything = set(self.shards)
        if self._searches:
            return everything, everything
        old, new = self._previous.names, self._layout.names
        sources = old if new - old else old - new
        targets = new if old - new else new - old
        return everything - (targets - sources), set(targets)


def _require_places_of_their_own(shards: Mapping[str, Shard]) -> None:
    """Refuse two objects over the same data: what moves from one to the other would be deleted there."""
    names: dict[Hashable, str] = {}
    for name, shard in shards.items():
        place = shard.store.place
        other = name if place is None else names.setdefault(place, name)
        if shards[other].store is not shard.store:
            raise ConfigurationError(
                f"the shards {other!r} and {name!r} are two stores over the same data; give each shard a place of its "
                "own, and a shard that only changes its name the same object in shards and previous"
            )


def _stores(argument: str, shards: Any) -> dict[str, ContextStore]:
    if not isinstance(shards, Mapping) or not shards:
        raise ConfigurationError(f"{argument} must be a mapping of names to stores with at least one entry")
    for name in shards:
        if not isinstance(name, str):
            raise ConfigurationError(f"the name of a shard must be text, not {type(name).__name__}: {name!r:.80}")
    try:
        stores = {name: as_store(store, f"shard {name!r}") for name, store in shards.items()}
    except ContextStoreError as exc:
        raise ConfigurationError(str(exc)) from exc
    if len({id(store) for store in stores.values()}) < len(stores):
        raise ConfigurationError("one store stands under two names; give each shard a store of its own")
    return stores
