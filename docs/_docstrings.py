"""Turn the reStructuredText of docstrings into Markdown; mkdocstrings loads this as an extension of griffe."""

import re
from typing import Any

import griffe

_QUALIFIED = re.compile(r":[a-z]+:`~?([^`]+)`")
_LITERAL_BLOCK = re.compile(r"^(?P<margin> *)(?P<text>.*?)::\n\n(?P<code>(?:(?P=margin) +.*\n|\n)+)", re.MULTILINE)


class Markdown(griffe.Extension):
    """Roles become code, literal blocks become fenced Python."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of what griffe has just loaded."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Return a docstring as Markdown."""
    roles = _QUALIFIED.sub(lambda found: f"`{found[1].rsplit('.', 1)[-1] if '~' in found[0] else found[1]}`", text)
    return _LITERAL_BLOCK.sub(_fenced, roles + "\n").rstrip()


def _fenced(found: re.Match[str]) -> str:
    margin, code = found["margin"], found["code"].rstrip("\n")
    text = f"{margin}{found['text']}:\n\n" if found["text"].strip() else ""
    indent = min(len(line) - len(line.lstrip()) for line in code.splitlines() if line.strip())
    lines = "\n".join(line[indent:] for line in code.splitlines())
    return f"{text}```python\n{lines}\n```\n\n"
