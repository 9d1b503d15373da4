"""What is broken in Lua scripts: a command that is left out, a condition, an order, a bound."""

import re
from collections.abc import Iterator

from tests.mutants.mutant import Change, other_number

__all__ = ["lua_changes"]

_SWAPS = {
    "==": "~=",
    "~=": "==",
    "<=": "<",
    ">=": ">",
    " < ": " <= ",
    " > ": " >= ",
    " and ": " or ",
    " or ": " and ",
    " + ": " - ",
    " - ": " + ",
    " * ": " + ",
    "not ": "",
    "true": "false",
    "false": "true",
    "math.min": "math.max",
    "math.max": "math.min",
    "math.ceil": "math.floor",
    "math.floor": "math.ceil",
    "'NX'": "'XX'",
    "'-inf'": "'+inf'",
    "'PEXPIRE'": "'PTTL'",
    "ZRANGE'": "ZREVRANGE'",
    "LPOP'": "RPOP'",
    "RPUSH'": "LPUSH'",
    "LPUSH'": "RPUSH'",
}
_SWAP = re.compile("|".join(map(re.escape, sorted(_SWAPS, key=len, reverse=True))))
_STATEMENT = re.compile(
    r"^\s*(?!local |return |if |for |while |else|end|function|[)}])([\w.\[\]#+ ]+(\(.*\)| = .+))$", re.MULTILINE
)
_CONDITION = re.compile(r"\b(?:if|elseif) (.+?) then$", re.MULTILINE)
_RETURN = re.compile(r"\breturn ([^\s0-9'].*)$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.'\[])(\d+)(?![\w.'])")
_OPTION = re.compile(r", '(?:PX|EX|LIMIT|MAXLEN)'(?:, [^,()]+(?:\([^()]*\))?)+(?=\))")


def lua_changes(source: str) -> Iterator[Change]:
    """Return every change of a script, but for comments and the line that reads the server's clock."""
    code = re.sub(r"--.*|^.*\btime\[1\].*", lambda found: "\0" * len(found.group()), source, flags=re.MULTILINE)
    unquoted = re.sub(r"'[^'\n]*'", lambda found: "\0" * len(found.group()), code)
    for found in _STATEMENT.finditer(code):
        yield Change(found.start(1), found.end(1), "", "statement dropped")
    for found in _CONDITION.finditer(code):
        yield Change(*found.span(1), "false", "condition never holds")
        yield Change(*found.span(1), "true", "condition always holds")
    for found in _RETURN.finditer(code):
        yield Change(*found.span(1), "0", "return 0")
    for found in _SWAP.finditer(code):
        if "'" in found.group() or "\0" not in unquoted[found.start() : found.end()]:
            yield Change(*found.span(), _SWAPS[found.group()], "operator")
    for found in _NUMBER.finditer(unquoted):
        yield Change(*found.span(), other_number(found.group()), "number")
    for found in _OPTION.finditer(code):
        yield Change(*found.span(), "", "option dropped")
