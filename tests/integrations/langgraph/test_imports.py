"""Nothing of LangGraph is imported before it is asked for, and its absence is named."""

import subprocess
import sys

import pytest

LAZY = """
import sys
import agent_service, agent_service.integrations.langgraph
import agent_service.infrastructure.database.items.joined
assert not {"langgraph", "langchain_core"} & sys.modules.keys()
"""
MISSING = """
import sys
sys.modules.update(dict.fromkeys(("langgraph", "langchain_core")))
from agent_service.integrations import langgraph
for name in langgraph.__all__:
    try:
        getattr(langgraph, name)
    except ImportError as exc:
        assert 'pip install "agent-service[langgraph]"' in str(exc), exc
    else:
        raise AssertionError(name)
"""


@pytest.mark.parametrize("program", [LAZY, MISSING])
def test_langgraph_is_imported_when_it_is_used(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
