"""The ACL rules that docs/cache.md writes down, and a user to try them."""

import re
from pathlib import Path

USER, PASSWORD = "app", "pw"
_DOCUMENT = Path(__file__).parents[2] / "docs" / "cache.md"


def documented_rules() -> dict[str, list[str]]:
    """Return the ACL rules of docs/cache.md, by user, as arguments of ACL SETUSER."""
    blocks = re.findall(r"^```redis\n(.*?)^```", _DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    rules: dict[str, list[str]] = {}
    for line in "".join(blocks).splitlines():
        _, _, user, *words = line.split()
        rules.setdefault(user, []).extend(words)
    return rules
