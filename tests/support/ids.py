"""Names of test cases that are equal in every process, so that several processes can share one run."""

import re


def steady(value: object) -> str:
    """Return a value's ascii form without addresses, and a set's in order, for ``ids=`` of such values."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({', '.join(sorted(map(steady, value)))})"
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))
