"""Pages name files and folders that exist, and ARCHITECTURE.md shows every room."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
HISTORY = "CHANGELOG.md"
BUILT_ON_PAGES = re.compile(r"\bshelf/|\b(test_)?shelf\.py")
"""What the pages for contributors tell a reader to make."""
ROOM = re.compile(r"(?m)^( {2,6})(\w+)/(?: |$)")
"""A line of the tree: two blanks for each level, and the folder."""


@pytest.fixture(scope="module")
def paths() -> list[str]:
    """All files and folders of the package and its tests, and the files beside them, beginning with a slash."""
    folders = [ROOT / each for each in ("agent_service", "benchmarks", "migrations", "tests")]
    found = [*ROOT.iterdir(), *(each for folder in folders for each in folder.rglob("*"))]
    return [f"/{each.relative_to(ROOT).as_posix()}" for each in found if "__pycache__" not in each.parts]


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.name != HISTORY], ids=lambda path: path.name)
def test_each_path_on_a_page_exists(document: Path, paths: list[str]):
    """A path may begin at any folder: ``loads/policy.py`` is enough."""
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`([\w/.*]+\.(?:py|lua|toml|md)|(?:agent_service|tests|benchmarks)/[\w/]+)`", text)

    ours = [each.rstrip("/") for each in named if not BUILT_ON_PAGES.search(each)]
    missing = [each for each in ours if not any(fnmatch(path, f"*/{each}") for path in paths)]

    assert missing == []


def test_each_path_of_the_architecture_begins_where_the_page_says():
    """``catalog.py`` or ``redis/source.py`` from anywhere would leave open which of several files is meant."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = [each for each in re.findall(r"`([\w/]+\.py)`", text) if not (ROOT / each).exists()]

    beginnings = (ROOT / "agent_service", ROOT / "agent_service" / "infrastructure")
    assert [each for each in named if not any((folder / each).is_file() for folder in beginnings)] == []


def test_the_tree_of_the_architecture_shows_every_room():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = page[page.index("```\nagent_service/") : page.index("migrations/  tests/")]
    shown, above = set(), [""] * 4
    for indent, name in ROOM.findall(tree):
        level = len(indent) // 2
        above[level] = name
        shown.add("/".join(above[1 : level + 1]))

    package = ROOT / "agent_service"
    rooms = {each.parent.relative_to(package).as_posix() for each in package.glob("*/**/__init__.py")}

    assert shown - {"infrastructure/redis/lua"} == rooms
