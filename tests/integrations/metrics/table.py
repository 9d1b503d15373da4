"""The table of all metrics in docs/observability.md. Print it with ``python -m tests.integrations.metrics.table``."""

import sys

from agent_service.integrations.metrics.catalogue import FAMILIES

HEAD = ["| metric | type | labels | meaning |", "|---|---|---|---|"]


def table() -> str:
    """Return the table."""
    rows = [
        f"| `{family.exposed}` | {family.kind} | {', '.join(f'`{each}`' for each in family.labels)} | {family.help} |"
        for family in FAMILIES.values()
    ]
    return "\n".join([*HEAD, *rows]).replace("|  |", "| |")


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
