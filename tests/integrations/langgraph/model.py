"""What a saver is to do, by LangGraph's saver in memory, with what that one lacks."""

from copy import copy
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

__all__ = ["Model"]

COUNTERS = "counters_since_delta_snapshot"


class Model(InMemorySaver):
    """A saver in memory that copies, prunes and removes runs."""

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all that there is under the first key."""
        for namespace, checkpoints in self.storage.get(source_thread_id, {}).items():
            self.storage[target_thread_id][namespace] = copy(checkpoints)
        tables: tuple[Any, ...] = (self.writes, self.blobs)
        for table in tables:
            for key, value in list(table.items()):
                if key[0] == source_thread_id:
                    table[target_thread_id, *key[1:]] = copy(value)

    def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        """Keep the latest of each namespace, and what its DeltaChannels are rebuilt from."""
        for thread_id in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread_id)
                continue
            for namespace in list(self.storage.get(thread_id, {})):
                self._keep_latest(thread_id, namespace)

    def delete_for_runs(self, run_ids: Any) -> None:
        """Remove the checkpoints of these runs."""
        for thread_id in list(self.storage):
            for namespace, checkpoints in self.storage[thread_id].items():
                found = [name for name, row in checkpoints.items() if self._metadata(row).get("run_id") in run_ids]
                self._remove(thread_id, namespace, found)

    def needs(self, run_ids: Any, thread_id: str) -> bool:
        """Whether a checkpoint that would stay has a DeltaChannel and a parent of one of these runs."""
        for checkpoints in self.storage.get(thread_id, {}).values():
            for row in checkpoints.values():
                parent = checkpoints.get(row[2]) if row[2] else None
                metadata = self._metadata(row)
                stays = metadata.get("run_id") not in run_ids
                if parent and stays and metadata.get(COUNTERS) and self._metadata(parent).get("run_id") in run_ids:
                    return True
        return False

    def threads(self) -> set[str]:
        """Return the threads that have checkpoints."""
        return {name for name, namespaces in self.storage.items() if any(namespaces.values())}

    def _keep_latest(self, thread_id: str, namespace: str) -> None:
        checkpoints = self.storage[thread_id][namespace]
        if not checkpoints:
            return
        head = max(checkpoints)
        deltas = {name for row in checkpoints.values() for name in self._metadata(row).get(COUNTERS) or ()}
        left = {each for each in deltas if each in self._document(checkpoints[head])["channel_versions"]}
        kept, current = {head}, head
        while left and current in checkpoints:
            kept.add(current)
            versions = self._document(checkpoints[current])["channel_versions"]
            values = self._load_blobs(thread_id, namespace, versions)
            left -= values.keys()
            current = checkpoints[current][2] or ""
        self._remove(thread_id, namespace, [each for each in checkpoints if each not in kept])

    def _remove(self, thread_id: str, namespace: str, names: list[str]) -> None:
        checkpoints = self.storage[thread_id][namespace]
        for name in names:
            del checkpoints[name]
            self.writes.pop((thread_id, namespace, name), None)
        for name, (document, metadata, parent) in list(checkpoints.items()):
            if parent in names:
                checkpoints[name] = (document, metadata, None)

    def _metadata(self, row: Any) -> Any:
        return self.serde.loads_typed(row[1])

    def _document(self, row: Any) -> Any:
        return self.serde.loads_typed(row[0])


def sorted_tuples(found: Any) -> list[CheckpointTuple]:
    """Return checkpoints in an order that does not depend on the saver."""
    return sorted(found, key=lambda each: tuple(each.config["configurable"].values()), reverse=True)
