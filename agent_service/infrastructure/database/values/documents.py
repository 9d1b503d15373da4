"""JSON documents as text, without loss.

What is written is verified by reading it back: a value that JSON would change on the way (a tuple, a key that is no
string, a NaN) is refused with the path to it. A float stays a float even where the database keeps decimals:
PostgreSQL's jsonb gives ``1e+23`` back as an integer, so it is written ``100000000000000000000000.0``.

Most messages are a few texts and counts. They cannot change on the way, and are written by a faster encoder, alike.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import orjson

from agent_service.core.errors import SessionValueError

__all__ = ["MAX_DEPTH", "check_value", "dumps", "encode_document", "loads", "path_name", "read_json"]

MAX_DEPTH = 200
"""Deepest nesting of a stored document; readers with little stack left must still be able to decode it."""

_CONSTANT = frozenset({str, int, bool, type(None)})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_STRING_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[\d.]+e\+\d+)')
_SIMPLE_KEY = re.compile(r"[^\W\d]\w*", re.ASCII)

_LARGE = float(2**63)

loads = json.loads


def read_json(text: str) -> Any:
    """Return what :data:`loads` does, of a stored text, in a fraction of its time."""
    # What orjson refuses (NaN, a lone surrogate), and what is nested too deep to be looked at, others wrote.
    with suppress(orjson.JSONDecodeError, RecursionError):
        value = orjson.loads(text)
        flat = isinstance(value, dict) and _CONSTANT.issuperset(map(type, value.values()))
        if flat or not _holds_large_float(value):
            return value
    return loads(text)


def _holds_large_float(value: Any) -> bool:
    """Whether orjson may have read an integer of more than 64 bits as a float."""
    if isinstance(value, dict):
        return any(map(_holds_large_float, value.values()))
    if isinstance(value, list):
        return any(map(_holds_large_float, value))
    return isinstance(value, float) and not -_LARGE < value < _LARGE


def dumps(value: Any) -> str:
    """Return the JSON text of a value.

    :raises ValueError: for NaN, infinity or a circular structure.
    :raises TypeError: for anything JSON has no form for.
    """
    text = _encode(value)
    return _STRING_OR_LARGE_FLOAT.sub(_without_exponent, text) if "e+" in text else text


def _without_exponent(match: re.Match[str]) -> str:
    number = match.group(1)
    return match.group(0) if number is None else f"{Decimal(number):f}.0"


def encode_document(document: Any, name: str, *, nul: bool) -> tuple[str, dict[str, Any]]:
    """Return the JSON text of a document, and the equal but independent document it reads back as.

    :param document: a dict; it is not changed.
    :param name: what errors call it.
    :param nul: whether strings may hold U+0000.
    :raises SessionValueError: naming the path of the first value that could not be kept exactly.
    """
    if not isinstance(document, dict):
        raise SessionValueError(f"{name} must be a dict, not {type(document).__name__}")
    text = _encode_flat(document)
    if text is not None and (nul or "\\u0000" not in text):
        return text, dict(document)
    copy: dict[str, Any]
    text, copy = _encode_deep(document, name, nul=nul)
    return text, copy


def check_value(value: Any, name: str, *, nul: bool) -> Any:
    """Return an independent copy of a value within a document; as :func:`encode_document`, but of any JSON type."""
    return _encode_deep(value, name, nul=nul)[1]


def path_name(name: str, path: Iterable[str | int]) -> str:
    """Name a place within a document as errors do: ``context.profile.cities[0]``."""
    for step in path:
        name = _join(name, step) if isinstance(step, str) else f"{name}[{step}]"
    return name


def _encode_deep(document: Any, name: str, *, nul: bool) -> tuple[str, Any]:
    try:
        text = dumps(document)
        text.encode()
        copy = loads(text)
        suspect = copy != document or text.count("{") + text.count("[") > MAX_DEPTH or ("\\u0000" in text and not nul)
    except (TypeError, ValueError, RecursionError) as exc:
        problem = next(_problems(document, name, nul=nul), f"{name} has no JSON form: {exc}")
        raise SessionValueError(problem) from exc
    if suspect:
        for problem in _problems(document, name, nul=nul):
            raise SessionValueError(problem)
    return text, copy


def _encode_flat(document: dict[Any, Any]) -> str | None:
    """Return the same text as :func:`dumps`, for a document of texts, integers, booleans and None; None for others."""
    if not _CONSTANT.issuperset(map(type, document.values())):
        return None
    try:
        return orjson.dumps(document).decode()
    except TypeError:  # A key that is no text, a lone surrogate, an integer of more than 64 bits.
        return None


def _problems(value: Any, path: str, *, nul: bool, depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{path} is nested more than {MAX_DEPTH} levels deep (or holds itself); store it flatter"
    elif isinstance(value, str):
        yield from _text_problems(value, path, nul=nul)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path} has a key that is no string: {key!r:.80} ({type(key).__name__}); use str(key)"
                continue
            yield from _text_problems(key, f"a key of {path}", nul=nul)
            yield from _problems(item, _join(path, key), nul=nul, depth=depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, f"{path}[{index}]", nul=nul, depth=depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{path} is {value!r}, which JSON has no form for; use None or a string"
    elif isinstance(value, tuple | set | frozenset):
        yield f"{path} is a {type(value).__name__}, which would come back as a list; use a list"
    elif value is not None and not isinstance(value, int):
        yield f"{path} is a {type(value).__name__}, which JSON has no form for; convert it first"


def _text_problems(text: str, path: str, *, nul: bool) -> Iterator[str]:
    if not nul and "\x00" in text:
        yield f"{path} holds U+0000, which the database cannot keep here; remove it"
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        yield f"{path} holds a lone surrogate (U+{ord(text[exc.start]):04X}) at {exc.start}; it is no text, repair it"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if _SIMPLE_KEY.fullmatch(key) else f"{path}[{key[:40]!a}]"
