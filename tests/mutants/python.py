"""What is broken in Python: comparisons, conditions, bounds, locks, orders, arguments, statements, replies."""

import ast
import re
from collections.abc import Iterator
from typing import TypeGuard

from tests.mutants.mutant import Change
from tests.mutants.sql import is_sql, sql_changes

__all__ = ["python_changes"]

_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
}
_SWAPPED_CALLS = {
    "all": "any",
    "any": "all",
    "ceil": "floor",
    "in_": "not_in",
    "is_": "is_not",
    "is_not": "is_",
    "max": "min",
    "min": "max",
    "not_in": "in_",
    "reversed": "list",
    "sorted": "list",
}
_LINKS = frozenset(
    (
        "where",
        "filter",
        "order_by",
        "limit",
        "with_for_update",
        "distinct",
        "desc",
        "asc",
        "group_by",
        "having",
        "offset",
    )
)
"""Calls of a statement under construction that leave a valid one when they are left out."""
_CONDITIONS = frozenset(("where", "filter", "and_", "or_", "order_by", "having"))
_NOT_MUTATED = frozenset(("__repr__", "__str__", "__reduce__"))
_SILENT = frozenset(("logger", "warnings", "dataclass", "TypeVar", "NewType", "ParamSpec", "getLogger"))
_WITHOUT_EFFECT = frozenset(("name", "strict", "type_", "synchronize_session", "usedforsecurity"))
"""Arguments that change nothing that a correct program could notice."""


def python_changes(source: str) -> Iterator[Change]:
    """Return every change of a module, but for what is said, logged or only there for types."""
    for change in _Finder(source).changes():
        try:
            compile(source[: change.start] + change.text + source[change.end :], "mutant", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        yield change


class _Finder:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tree = ast.parse(source)
        self._decided = {
            id(node.test)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.If | ast.While) and not node.orelse and _is_equality(node.test)
        }
        """Comparisons whose opposite is already there as a condition that always, or never, holds."""
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._texts = source.splitlines()

    def changes(self) -> Iterator[Change]:
        yield from self._inside(self._tree)

    def _inside(self, node: ast.AST) -> Iterator[Change]:
        if _is_left_alone(node):
            return
        yield from self._of(node)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "type_comment"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not (isinstance(node, ast.Raise) and name == "exc"):
                    yield from self._inside(child)

    def _of(self, node: ast.AST) -> Iterator[Change]:
        match node:
            case ast.expr():
                yield from self._of_expression(node)
            case ast.If() | ast.While():
                yield from self._condition(node)
            case ast.comprehension():
                for condition in node.ifs:
                    yield self._replaced(condition, "True", "filter dropped")
            case ast.ExceptHandler(type=ast.expr() as kind):
                yield from self._except(kind)
            case ast.stmt():
                yield from self._of_statement(node)
        if _is_dropped(node):
            yield self._replaced(node, "pass", "statement dropped")

    def _of_expression(self, node: ast.expr) -> Iterator[Change]:
        match node:
            case ast.Compare() if id(node) not in self._decided:
                yield from self._comparison(node)
            case ast.BoolOp():
                yield from self._without_each(node.values, "operand dropped")
            case ast.BinOp() if type(node.op) in _ARITHMETIC and not (_is_text(node.left) or _is_text(node.right)):
                yield from self._between(node.left, node.right, *_ARITHMETIC[type(node.op)], "arithmetic")
            case ast.UnaryOp(op=ast.Not() | ast.Invert()):
                yield self._replaced(node, self._text(node.operand), "negation dropped")
            case ast.IfExp():
                yield from self._condition(node)
            case ast.Constant() | ast.JoinedStr():
                yield from self._constant(node)
            case ast.Call():
                yield from self._call(node)
            case ast.Attribute() if node.attr in _SWAPPED_CALLS:
                text = self._text(node).removesuffix(node.attr)
                yield self._replaced(node, text + _SWAPPED_CALLS[node.attr], "call swapped")

    def _of_statement(self, node: ast.stmt) -> Iterator[Change]:
        match node:
            case ast.AugAssign() if type(node.op) in _ARITHMETIC:
                old, new = _ARITHMETIC[type(node.op)]
                yield from self._between(node.target, node.value, f"{old}=", f"{new}=", "arithmetic")
            case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
                yield self._replaced(value, "None", "return None")
                if isinstance(value, ast.Tuple):
                    yield from (self._left_out(each, "element dropped") for each in value.elts)
            case ast.With() | ast.AsyncWith():
                yield from self._with(node)
            case ast.Break():
                yield self._replaced(node, "continue", "break continues")
            case ast.Continue():
                yield self._replaced(node, "break", "continue breaks")

    def _comparison(self, node: ast.Compare) -> Iterator[Change]:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            yield from self._between(left, right, *_COMPARISONS[type(operator)], "comparison")
            left = right

    def _condition(self, node: ast.If | ast.While | ast.IfExp) -> Iterator[Change]:
        if isinstance(node, ast.If | ast.While) and not node.orelse:
            yield self._replaced(node.test, "False", "condition never holds")
            yield self._replaced(node.test, "True", "condition always holds")
        elif not isinstance(node.test, ast.Compare):
            yield self._replaced(node.test, f"not ({self._text(node.test)})", "condition negated")

    def _constant(self, node: ast.Constant | ast.JoinedStr) -> Iterator[Change]:
        match node:
            case ast.Constant(value=bool() as value):
                yield self._replaced(node, str(not value), "constant")
            case ast.Constant(value=int() | float() as value):
                yield self._replaced(node, f"({self._text(node)} {'+ 1' if value <= 10 else '* 2'})", "constant")
            case ast.Constant(value=str()) | ast.JoinedStr() if is_sql(self._text(node)):
                yield from self._sql(node)

    def _sql(self, node: ast.expr) -> Iterator[Change]:
        start, _ = self._span(node)
        for change in sql_changes(self._text(node)):
            yield Change(start + change.start, start + change.end, change.text, change.kind)

    def _call(self, node: ast.Call) -> Iterator[Change]:
        name = _name(node.func)
        if isinstance(node.func, ast.Name) and name in _SWAPPED_CALLS:
            yield self._replaced(node.func, _SWAPPED_CALLS[name], "call swapped")
        if name in {"greatest", "least", "max", "min", "coalesce"} and len(node.args) == 2:
            for argument in node.args:
                yield self._replaced(node, self._text(argument), "choice dropped")
        if name in _LINKS and isinstance(node.func, ast.Attribute):
            yield self._replaced(node, self._text(node.func.value), f"{name} dropped")
        for argument in node.args:
            if isinstance(argument, ast.Starred) or (name in _CONDITIONS and len(node.args) > 1):
                yield self._left_out(argument, "argument dropped")
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in _WITHOUT_EFFECT:
                yield self._left_out(keyword, "argument dropped")

    def _except(self, kind: ast.expr) -> Iterator[Change]:
        if isinstance(kind, ast.Tuple):
            for each in kind.elts:
                yield self._left_out(each, "except narrowed")
        else:
            yield self._replaced(kind, "()", "except narrowed")

    def _with(self, node: ast.With | ast.AsyncWith) -> Iterator[Change]:
        if any(item.optional_vars is not None for item in node.items):
            return
        start, _ = self._span(node)
        _, end = self._span(node.items[-1].context_expr)
        colon = self._source.index(":", end)
        yield Change(start, colon, "if True", "with dropped")

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str, kind: str) -> Iterator[Change]:
        start, end = self._span(left)[1], self._span(right)[0]
        found = re.search(r"\s*".join(map(re.escape, old.split())), self._source[start:end])
        if found:
            yield Change(start + found.start(), start + found.end(), new, kind)

    def _without_each(self, parts: list[ast.expr], kind: str) -> Iterator[Change]:
        """Leave out each operand with the operator beside it."""
        spans = [self._whole(part) for part in parts]
        for place, (start, end) in enumerate(spans):
            if place:
                yield Change(spans[place - 1][1], end, "", kind)
            else:
                yield Change(start, spans[1][0], "", kind)

    def _left_out(self, node: ast.AST, kind: str) -> Change:
        start, end = self._whole(node)
        comma = re.match(r"\s*,\s*", self._source[end:])
        return Change(start, end + (comma.end() if comma else 0), "", kind)

    def _replaced(self, node: ast.AST, text: str, kind: str) -> Change:
        return Change(*self._span(node), text, kind)

    def _whole(self, node: ast.AST) -> tuple[int, int]:
        """Where it stands, with the brackets around it."""
        start, end = self._span(node)
        while True:
            before = re.search(r"\(\s*$", self._source[:start][-200:])
            after = re.match(r"\s*\)", self._source[end:])
            if not before or not after or re.search(r"[\w\])]\(\s*$", self._source[:start][-200:]):
                return start, end
            start, end = start - len(before.group()), end + after.end()

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword | ast.ExceptHandler)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int, column: int) -> int:
        return self._lines[line - 1] + len(self._texts[line - 1].encode()[:column].decode())

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end]


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.keyword(arg=name):
            return name in _WITHOUT_EFFECT
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return node.name in _NOT_MUTATED or _is_stub(node.body)
        case ast.ClassDef():
            return any(_name(base) == "Protocol" for base in node.bases)
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Expr(value=ast.Call(func=called)):
            return bool(_names(called) & _SILENT)
        case ast.Call(func=called):
            return bool(_names(called) & _SILENT)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in {"__all__", "__slots__"} or bool(_names(node.value) & _SILENT)
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return True
    return False


def _is_equality(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) and isinstance(
        node.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn
    )


def _is_stub(body: list[ast.stmt]) -> bool:
    return all(isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in body)


def _is_dropped(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Await() | ast.Call() | ast.Yield()) | ast.AugAssign() | ast.Delete() | ast.Raise():
            return True
        case ast.Assign(targets=targets):
            return all(isinstance(each, ast.Attribute | ast.Subscript) for each in targets)
    return False


def _is_text(node: ast.expr) -> TypeGuard[ast.expr]:
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _name(value)
    return ""


def _names(node: ast.AST) -> set[str]:
    return (
        {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        if not isinstance(node, ast.Lambda)
        else set()
    )
