"""Turn links to files outside of docs/ into links to the repository; mkdocs calls this for every page."""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return the page with the links that work on the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(found: re.Match[str]) -> str:
        target = found[2]
        if "://" in target or target.startswith(("mailto:", "/")):
            return found[0]
        place = posixpath.normpath(posixpath.join("docs", folder, target))
        if place.startswith("docs/"):
            return found[0]
        return f"{found[1]}{config.repo_url}/blob/main/{place}{found[3] or ''})"

    return _LINK.sub(replaced, markdown)
