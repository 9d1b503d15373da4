"""The module of a user that type checkers read touches every public name, so that none is checked by nobody."""

import ast
from importlib.metadata import version
from pathlib import Path

import agent_service
from tests.house import consumer


def test_the_consumer_uses_every_public_name():
    tree = ast.parse(Path(consumer.__file__).read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert set(agent_service.__all__) - used == set()
    assert consumer.ANSWER.keys() | set(consumer.RETRY) | {agent_service.AgentServiceError} == {
        each
        for name in agent_service.__all__
        if isinstance(each := getattr(agent_service, name), type) and issubclass(each, agent_service.AgentServiceError)
    }


def test_the_version_is_that_of_the_installed_package():
    assert agent_service.__version__ == version("agent-service")
