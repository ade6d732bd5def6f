"""A real nats-server on a free port of this machine, which stays its own across restarts."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

__all__ = ["NATS_SERVER_MISSING", "NatsServer", "nats_executable", "nats_server", "nats_url"]

NATS_SERVER_MISSING = "nats-server is not installed (Debian, Ubuntu: apt install nats-server)"
_WITHIN_S = 20.0
_LISTENING = re.compile(r"Listening for client connections on 127\.0\.0\.1:(\d+)")
_MONITOR = re.compile(r"Starting http monitor on 127\.0\.0\.1:(\d+)")


class NatsServer:
    """Starts, stops, kills and freezes the server. Every method blocks, for some 10 ms at most."""

    def __init__(self) -> None:
        self.port = 0
        """Known once it has started, and the same after every further start."""
        self.monitor_port = 0
        """Where it tells about itself over HTTP (`/varz`), since its last start."""
        self.lines: list[str] = []
        """What it has written."""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether there is one to start."""
        return nats_executable() is not None

    @property
    def pid(self) -> int:
        """Its process; 0 when it does not run."""
        return 0 if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended."""
        return self._process is not None

    @property
    def url(self) -> str:
        """What a client is told."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Run it; returns when it takes connections.

        Raises:
            RuntimeError: it is not installed, has ended, or takes too long; the message says why.
        """
        executable = nats_executable()
        if executable is None:
            raise RuntimeError(NATS_SERVER_MISSING)
        address = ["--addr", "127.0.0.1", "--port", str(self.port or -1), "--http_port", "-1"]
        self._process = subprocess.Popen(
            [executable, *address], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        settled = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, settled))
        self._reader.start()
        if not settled.wait(_WITHIN_S) or self._process.poll() is not None:
            self.kill()
            raise RuntimeError("nats-server did not start:\n" + "\n".join(self.lines[-20:]))

    def stop(self) -> None:
        """Ask it to end: it closes its connections first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel does when memory runs out."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, and it says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, reader, self._process, self._reader = self._process, self._reader, None, None
        if process is None or reader is None:
            return
        process.send_signal(number)
        try:
            process.wait(_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()

    def _read(self, process: "subprocess.Popen[str]", settled: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.lines.append(line.rstrip("\n"))
                if found := _LISTENING.search(line):
                    self.port = int(found[1])
                if found := _MONITOR.search(line):
                    self.monitor_port = int(found[1])
                if "Server is ready" in line:
                    settled.set()
        settled.set()


@contextlib.contextmanager
def nats_server() -> Iterator[NatsServer]:
    """Run one while the context lasts."""
    server = NatsServer()
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    """Where a server answers that the tests of this run share; subjects must be one's own."""
    if not NatsServer.is_installed():
        pytest.skip(NATS_SERVER_MISSING)
    with nats_server() as server:
        yield server.url


def nats_executable() -> str | None:
    """Not everybody's PATH has /usr/sbin, where Debian puts it."""
    return shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
