"""A process of its own that has the locks of a folder: ``python -m tests.context.locker FOLDER [fork]``.

It writes, and stops in the middle, with the lock in its hands. With ``fork`` it has forked a child by then.
"""

import asyncio
import os
import signal
import sys
import time

from agent_service.context.files.store import FileContextStore


def stop_at_flush(forks: bool) -> None:
    def stop(fd: object) -> None:
        if forks and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        sys.stdout.write("holding\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)  # this thread may run on for a moment

    os.fsync = stop


if __name__ == "__main__":
    os.setsid()  # whoever started it ends its child, too
    folder, *how = sys.argv[1:]
    store = FileContextStore(folder)
    asyncio.run(store.set("warm", {}))
    stop_at_flush("fork" in how)
    asyncio.run(store.set("a", {"by": "the stopped one"}))
