"""
What the machine, the shell or whoever starts a run hands down to a process, and no test may depend on.

Time zone, locale, umask, home, proxies, credentials and settings; signals that a shell ignores for what it starts in
the background; and the wish for no bytecode, which makes every interpreter that a test starts compile the package.
"""

import contextlib
import locale
import os
import signal
import sys
import threading
import time

KEPT = ("PATH", "TMPDIR", "CI", "PYTHONPATH", "PYTHONHASHSEED", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
KEPT_PREFIXES = ("TEST_", "AGENT_SERVICE_DATA", "PYTEST_", "HYPOTHESIS_", "COV_", "COVERAGE_", "PIP_", "SSL_CERT_")
"""Where programs, packages and data are found, and what is said to the tests themselves."""


def clean() -> None:
    """Make the surroundings of this process, and of those it starts, the same everywhere."""
    for name in list(os.environ):
        if name not in KEPT and not name.startswith(KEPT_PREFIXES):
            del os.environ[name]
    os.environ.update(TZ="UTC", LC_ALL="C.UTF-8", HOME=os.devnull, TERM="dumb")
    if hasattr(time, "tzset"):
        time.tzset()
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
    os.umask(0o022)
    sys.dont_write_bytecode = False
    if threading.current_thread() is threading.main_thread():
        _listen_to_signals()


def _listen_to_signals() -> None:
    """Take signals as a process in the foreground does; a run may still outlive its terminal (SIGHUP)."""
    for name in ("SIGTERM", "SIGQUIT", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGALRM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
