"""The error tree: drawn as it is, and caught by the builtin classes it promises."""

import re

import agent_service
from agent_service.core import errors


def drawn_tree() -> dict[str, str]:
    """Read the drawing in the module's docstring: class -> parent."""
    stack: list[str] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            del stack[depth:]
            if stack:
                parents[found[2]] = stack[-1]
            stack.append(found[2])
    return parents


def test_the_drawing_shows_every_error_under_its_parent():
    actual = {
        name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__ if name != "AgentServiceError"
    }

    assert drawn_tree() == actual


def test_every_error_of_the_module_is_exported_and_documented():
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AgentServiceError)
    }

    assert defined == set(errors.__all__)
    assert all(getattr(errors, name).__doc__ for name in defined)


def test_the_drawing_names_the_builtin_classes_too():
    for name, builtins in re.findall(r"(\w+Error) +\(also ([\w, ]+)\)", errors.__doc__ or ""):
        bases = {base.__name__ for base in getattr(errors, name).__bases__[1:]}

        assert bases == set(builtins.split(", "))


def test_the_package_shows_every_error():
    missing = [name for name in errors.__all__ if getattr(agent_service, name, None) is not getattr(errors, name)]

    assert missing == []
