"""Whether several workers of one service are evident."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_service.core.processes import several_processes

SPAWN = """
import multiprocessing, sys
from agent_service.core.processes import several_processes

def tell(gate, results):
    gate.wait(60)
    results.put(several_processes())
    gate.wait(60)  # none ends before the others have looked

if __name__ == "__main__":
    kind, count = sys.argv[1], int(sys.argv[2])
    context = multiprocessing.get_context(kind)
    gate, results = context.Barrier(count), context.Queue()
    workers = [context.Process(target=tell, args=(gate, results)) for _ in range(count)]
    for each in workers:
        each.start()
    print(*(results.get(timeout=60) for _ in workers), sep="\\n")
    for each in workers:
        each.join()
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.setattr("agent_service.core.processes._siblings", lambda: 0)


@pytest.mark.parametrize(("value", "evidence"), [("4", "WEB_CONCURRENCY=4"), ("1", None), ("", None), ("many", None)])
def test_web_concurrency_says_so(monkeypatch: pytest.MonkeyPatch, value: str, evidence: str | None):
    monkeypatch.setenv("WEB_CONCURRENCY", value)

    assert several_processes() == evidence


@pytest.mark.parametrize(
    ("argv", "evidence"),
    [
        (["/bin/uvicorn", "app:app", "--workers", "4"], "--workers 4"),
        (["/lib/uvicorn/__main__.py", "app:app", "--workers=2"], "--workers 2"),
        (["gunicorn", "-w", "3", "app:app"], "--workers 3"),
        (["fastapi", "run", "--workers", "2"], "--workers 2"),
        (["uvicorn", "app:app", "--workers", "1"], None),
        (["uvicorn", "app:app", "--workers"], None),
        (["uvicorn", "app:app", "--reload"], None),
        (["/usr/bin/wc", "-w", "3"], None),
        (["-c"], None),
        ([], None),
    ],
)
def test_a_known_server_s_option_says_so(monkeypatch: pytest.MonkeyPatch, argv: list[str], evidence: str | None):
    monkeypatch.setattr(sys, "argv", argv)

    assert several_processes() == evidence


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize("kind", ["spawn", "fork"])
def test_workers_of_one_parent_see_each_other_and_a_single_one_sees_nobody(kind: str, tmp_path: Path):
    (tmp_path / "workers.py").write_text(SPAWN)

    for count in (1, 3):
        told = subprocess.run(
            [sys.executable, "workers.py", kind, str(count)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert [each.startswith("3 workers of process") for each in told] == [count == 3] * count
        assert count == 3 or told == ["None"]
