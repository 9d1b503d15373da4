"""What is broken in SQL text: a condition, an order, a lock, a bound, an assignment that is left out."""

import re
from collections.abc import Iterator

from tests.mutants.mutant import Change, other_number

__all__ = ["is_sql", "sql_changes"]

_SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|ORDER BY|ON CONFLICT|FOR UPDATE|LISTEN|AND)\b")
_CLAUSES = (
    r"\b(WHERE|AND|OR|ORDER BY|GROUP BY|RETURNING|LIMIT|ON CONFLICT|UNION|FROM|FOR (?:NO KEY )?UPDATE|SET|SELECT"
    r"|THEN|ELSE|END|WHEN|SKIP LOCKED|JOIN)\b"
)
_SWAPS = {
    "<=": "<",
    ">=": ">",
    "<>": "=",
    "<": "<=",
    ">": ">=",
    " + ": " - ",
    " - ": " + ",
    "IS NOT NULL": "IS NULL",
    "IS NULL": "IS NOT NULL",
    "NOT EXISTS": "EXISTS",
    "NOT IN": "IN",
    "UNION ALL": "UNION",
    "DO NOTHING": "DO UPDATE SET seq = EXCLUDED.seq",
    " DESC": "",
    "DISTINCT": "",
    " SKIP LOCKED": "",
    " NOWAIT": "",
}
_SWAP = re.compile("|".join(map(re.escape, sorted(_SWAPS, key=len, reverse=True))))
_CHOICES = re.compile(r"\b(greatest|least|max|min|coalesce)\(", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w$.:'])(\d+)(?![\w.:'])")


def is_sql(text: str) -> bool:
    """Whether a literal of Python holds SQL."""
    return len(_SQL.findall(text)) > 0 and " " in text


def sql_changes(text: str) -> Iterator[Change]:
    """Return every change of a piece of source that holds SQL."""
    for found in _SWAP.finditer(text):
        yield Change(*found.span(), _SWAPS[found.group()], "sql operator")
    for found in re.finditer(r"\b(AND|OR|ORDER BY|LIMIT|ON CONFLICT|FOR (?:NO KEY )?UPDATE)\b", text):
        yield Change(found.start(), _end_of_clause(text, found.end()), "", f"sql {found.group().lower()} dropped")
    for found in re.finditer(r"\bWHERE\b", text):
        end = _end_of_clause(text, found.end())
        following = re.match(r"\s*\b(AND|OR)\b", text[end:])
        if following:
            yield Change(found.end(), end + following.end(), "", "sql condition dropped")
        else:
            yield Change(found.start(), end, "", "sql where dropped")
    for found in _CHOICES.finditer(text):
        arguments = _split(text, found.end())
        if len(arguments) == 2:
            for start, end in arguments:
                yield Change(found.start(), arguments[-1][1] + 1, text[start:end].strip(), "sql choice dropped")
    for found in re.finditer(r"\bSET\b", text):
        for start, end in (parts := _split(text, found.end())):
            if len(parts) > 1:
                end_of_it = _end_of_clause(text, start)
                last = (start, end) == parts[-1]
                yield Change(
                    start - 1 if last else start, min(end, end_of_it) if last else end + 1, "", "sql assignment dropped"
                )
    for found in _NUMBER.finditer(text):
        yield Change(*found.span(), other_number(found.group()), "sql number")


def _end_of_clause(text: str, start: int) -> int:
    """Where a clause ends: before the next keyword, comma or closing bracket that is its own, or at the quote."""
    depth = 0
    for position in range(start, len(text)):
        character = text[position]
        depth += (character == "(") - (character == ")")
        begins_word = not (text[position - 1].isalnum() or text[position - 1] == "_")
        if depth < 0 or character == '"':
            return position
        if depth == 0 and (character == "," or (begins_word and re.match(_CLAUSES, text[position:]))):
            return position
    return len(text)


def _split(text: str, start: int) -> list[tuple[int, int]]:
    """Return the pieces between commas, up to the closing bracket or the next clause."""
    pieces, depth, begin = [], 0, start
    for position in range(start, len(text)):
        character = text[position]
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        ends = depth < 0 or (depth == 0 and re.match(r"\b(WHERE|FROM|RETURNING)\b", text[position:]))
        if ends or (depth == 0 and character == ","):
            pieces.append((begin, position))
            begin = position + 1
        if ends:
            break
    return pieces
