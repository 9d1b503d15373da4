"""Each operator, on sources of a line or two."""

import pytest

from tests.mutants.lua import lua_changes
from tests.mutants.mutant import mutants_from, sample
from tests.mutants.python import python_changes


def changed(source: str) -> set[str]:
    return {each.after.strip() for each in mutants_from("a.py", source, python_changes(source))}


def changed_lua(source: str) -> set[str]:
    return {each.after.strip() for each in mutants_from("a.lua", source, lua_changes(source))}


@pytest.mark.parametrize(
    ("source", "one_of_the_changes"),
    [
        ("x = a < b", "x = a <= b"),
        ("x = a and b and c", "x = a and c"),
        ("x = (a or b) and c", "x = c"),
        ("x = not a", "x = a"),
        ("x = a + b", "x = a - b"),
        ("x = 5", "x = (5 + 1)"),
        ("x = True", "x = False"),
        ("a.b += 1", "pass"),
        ("if a == b:\n    c()", "if False:"),
        ("if a:\n    b()\nelse:\n    c()", "if not (a):"),
        ("x = [a for a in b if a.c]", "x = [a for a in b if True]"),
        ("x = sorted(a)", "x = list(a)"),
        ("x = min(a, b)", "x = max(a, b)"),
        ("x = func.greatest(a, b)", "x = a"),
        ("def f():\n    return a", "return None"),
        ("def f():\n    return a == 1, b", "return b"),
        ("def f():\n    raise ValueError('no')", "pass"),
        ("async def f():\n    async with self._lock:\n        g()", "if True:"),
        ("async def f():\n    await g()", "pass"),
        ("try:\n    a()\nexcept (B, C):\n    pass", "except (C):"),
        ("try:\n    a()\nexcept B:\n    pass", "except ():"),
        ("while a:\n    break", "continue"),
        ("x = f(a, b=c)", "x = f(a, )"),
        ("x = f(a, *visible(b))", "x = f(a, )"),
        ("x = select(a).where(b, c)", "x = select(a).where(c)"),
        ("x = select(a).order_by(b)", "x = select(a)"),
        ("x = select(a).with_for_update(skip_locked=True)", "x = select(a).with_for_update()"),
        ("x = a.b.is_(None)", "x = a.b.is_not(None)"),
    ],
)
def test_a_python_source_has_this_mutant(source: str, one_of_the_changes: str):
    assert one_of_the_changes in changed(source)


@pytest.mark.parametrize(
    ("sql", "one_of_the_changes"),
    [
        ("SELECT a FROM b WHERE c = 1 AND d = 2", "SELECT a FROM b WHERE d = 2"),
        ("SELECT a FROM b WHERE c = 1 AND d = 2", "SELECT a FROM b WHERE c = 1 "),
        ("SELECT a FROM b WHERE c = 1", "SELECT a FROM b "),
        ("SELECT a FROM b ORDER BY a FOR UPDATE", "SELECT a FROM b FOR UPDATE"),
        ("SELECT a FROM b ORDER BY a FOR NO KEY UPDATE", "SELECT a FROM b ORDER BY a "),
        ("SELECT a FROM b WHERE c <= 1", "SELECT a FROM b WHERE c < 1"),
        ("SELECT a FROM b WHERE NOT EXISTS (SELECT 1)", "SELECT a FROM b WHERE EXISTS (SELECT 1)"),
        ("UPDATE a SET b = greatest(b, 2), c = 3 WHERE d", "UPDATE a SET b = 2, c = 3 WHERE d"),
        ("UPDATE a SET b = 1, c = 3 WHERE d", "UPDATE a SET c = 3 WHERE d"),
        ("INSERT INTO a VALUES (b) ON CONFLICT (c) DO NOTHING", "INSERT INTO a VALUES (b) "),
    ],
)
def test_sql_text_has_this_mutant(sql: str, one_of_the_changes: str):
    found = {
        each.removeprefix('x = """').removesuffix('"""').replace("  ", " ") for each in changed(f'x = """{sql}"""')
    }

    assert one_of_the_changes in found


@pytest.mark.parametrize(
    ("source", "one_of_the_changes"),
    [
        ("redis.call('DEL', KEYS[1])", ""),
        ("take_back()", ""),
        ("if a == b then\n  c()\nend", "if false then"),
        ("return a == b and c", "return a == b or c"),
        ("local a = redis.call('SET', k, v, 'PX', ARGV[1])", "local a = redis.call('SET', k, v)"),
        ("local a = math.ceil(b)", "local a = math.floor(b)"),
        ("return 1", "return 2"),
    ],
)
def test_a_lua_source_has_this_mutant(source: str, one_of_the_changes: str):
    assert one_of_the_changes in changed_lua(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""At most 5 of them, if a < b."""',
        'logger.warning("the journal of %d is full", 5)',
        "def __repr__(self):\n    return f'{a + 1}'",
        "class A(Protocol):\n    def f(self, b=1): ...",
        "from a import b",
        "@dataclass(frozen=True)\nclass A:\n    b: int",
        "x = zip(a, b, strict=True)",
    ],
)
def test_what_is_only_said_or_only_for_types_is_left_alone(source: str):
    assert changed(source) == set()


def test_comments_of_lua_are_left_alone():
    assert changed_lua("-- at most 5, if a == b then\n") == set()


def test_every_mutant_of_python_can_be_compiled():
    source = 'x = f"SELECT {a} FROM b WHERE c = 1 AND d"\ny = (1 if a < b else 2)\n'

    for mutant in mutants_from("a.py", source, python_changes(source)):
        compile(mutant.text, "mutant", "exec")


def test_mutants_keep_their_names_when_lines_move():
    source = "x = a < b\n"
    moved = f"\n\n{source}"

    assert [each.id for each in mutants_from("a.py", source, python_changes(source))] == [
        each.id for each in mutants_from("a.py", moved, python_changes(moved))
    ]


def test_equal_lines_have_mutants_of_different_names():
    source = "x = a < b\nx = a < b\n"
    names = [each.id for each in mutants_from("a.py", source, python_changes(source))]

    assert len(names) == len(set(names)) > 1


def test_a_sample_is_the_same_each_time_and_in_the_order_of_the_file():
    source = "\n".join(f"x = {number}" for number in range(50))
    mutants = list(mutants_from("a.py", source, python_changes(source)))

    drawn = sample(mutants, 10, seed=1)

    assert len(drawn) == 10
    assert drawn == sample(mutants, 10, seed=1) != sample(mutants, 10, seed=2)
    assert [each.line for each in drawn] == sorted(each.line for each in drawn)
