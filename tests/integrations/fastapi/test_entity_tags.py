"""Entity tags as RFC 9110, 8.8.3 and 13.1, write and compare them."""

import pytest

from agent_service.integrations.fastapi.entity_tags import EntityTag, EntityTags, content_tag, parse_tags

A, B, WEAK_A = EntityTag("a"), EntityTag("b"), EntityTag("a", weak=True)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['"a"'], (A,)),
        (['W/"a"'], (WEAK_A,)),
        (['"a", W/"a" ,"b"'], (A, WEAK_A, B)),
        (['"a"', '"b"'], (A, B)),
        ([' ,, "a",\t,'], (A,)),
        (['"r2d2xxxx"', 'W/"a", "b"'], (EntityTag("r2d2xxxx"), WEAK_A, B)),
        (['""'], (EntityTag(""),)),
        (['"a,b"'], (EntityTag("a,b"),)),
        (['"\\"'], (EntityTag("\\"),)),
        (['"\xe9"'], (EntityTag("\xe9"),)),
    ],
)  # fmt: skip
def test_a_list_of_tags_is_read(lines: list[str], found: tuple[EntityTag, ...]) -> None:
    assert parse_tags(lines) == EntityTags(found)


def test_a_star_stands_for_any_tag() -> None:
    assert parse_tags([" * "]) == EntityTags(any=True)


@pytest.mark.parametrize(
    "line", ["", " ,", "a", '"a', 'a"', '"a" "b"', '"a"b', '*, "a"', 'w/"a"', 'W/ "a"', '"a b"', '"a\x7f"', '"a\x00"']
)
def test_what_is_no_list_of_tags_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="entity tag"):
        parse_tags([line])


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        # The table of RFC 9110, 8.8.3.2.
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_tags_are_compared_strongly_and_weakly(one: str, other: str, strong: bool, weak: bool) -> None:
    listed, (tag,) = parse_tags([one]), parse_tags([other]).tags

    assert listed.match_weakly(tag) is weak
    assert (not tag.weak and tag.opaque in listed.strong()) is strong


def test_the_tag_of_some_content_is_the_same_in_every_process() -> None:
    tag = content_tag(b"hello", "3-")

    assert str(tag) == '"3-8ed7252f4b03f9e8376db5b2"'
    assert parse_tags([str(tag)]) == EntityTags((tag,))
    assert content_tag(b"hello!", "3-") != tag
