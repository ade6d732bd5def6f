"""The containers of one run, under a project name and ports of their own."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
SERVICES = ("profile-service", "ws-gateway")
DATABASES = {"profile-service": "users.db", "ws-gateway": "messages.db"}
WITHOUT_LIMITS = {
    "DUET_SIGN_UPS_PER_ADDRESS": "100000",  # everybody comes from one address here
    "DUET_MESSAGES_PER_S": "100000",  # and one person sends what many would
    "DUET_MESSAGE_BURST": "100000",
    "DUET_REQUESTS_PER_S": "100000",
    "DUET_REQUEST_BURST": "100000",
}
HEALTHY_WITHIN_S = 60.0
POLL_S = 0.1


class Stack:
    """Builds, starts, kills and removes the services of docker-compose.yml.

    A developer's own stack is not touched. Every method blocks; use a thread beside an event loop.
    """

    def __init__(self) -> None:
        self.project = f"duet-test-{secrets.token_hex(4)}"
        ports = dict(zip(SERVICES, _free_ports(), strict=True))
        self.http_url = f"http://127.0.0.1:{ports['profile-service']}"
        self.websocket_url = f"ws://127.0.0.1:{ports['ws-gateway']}/v1/ws"
        self._ready_urls = {
            service: f"http://127.0.0.1:{port}/readyz" for service, port in ports.items()
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DUET_")},
            "DUET_PUBLISHED_PROFILE_PORT": str(ports["profile-service"]),
            "DUET_PUBLISHED_GATEWAY_PORT": str(ports["ws-gateway"]),
            **WITHOUT_LIMITS,
        }
        self._compose = _compose_command()

    def up(self) -> None:
        """Build, start in the background and wait until both answer that they are ready."""
        self._run("up", "--build", "--detach")
        self.wait_until_ready()

    def start(self, service: str) -> None:
        """Start a service that was killed, and wait until both are ready."""
        self._run("start", service)
        self.wait_until_ready()

    def kill(self, service: str) -> None:
        """End a service as a crash would: SIGKILL, nothing is flushed or closed."""
        _docker("kill", "--signal", "KILL", self.container(service))

    def stop(self, service: str) -> None:
        """Ask a service to stop, with the grace that docker-compose.yml gives it."""
        self._run("stop", service)

    def wait_until_ready(self) -> None:
        """Ask each service through its published port until both are ready.

        Raises:
            TimeoutError: one was not within the time; the message has the logs.
        """
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        for service, url in self._ready_urls.items():
            while not _answers_ok(url):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{service} is not ready:\n{self.logs(service)}")
                time.sleep(POLL_S)

    def wait_until_healthy(self, service: str) -> None:
        """Wait until the image's own health check says so.

        Raises:
            TimeoutError: it did not within the time; the message has the last results.
        """
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while (health := self.inspect(service)["State"]["Health"])["Status"] != "healthy":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{service}: {health}")
            time.sleep(POLL_S)

    def container(self, service: str) -> str:
        """The identifier of the container that runs, or ran, `service`."""
        return _docker(
            "ps", "--all", "--quiet",
            "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
        ).strip()  # fmt: skip

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of the container."""
        found: dict[str, Any]
        (found,) = json.loads(_docker("inspect", self.container(service)))
        return found

    def python(self, service: str, program: str) -> str:
        """Run a Python program in the container, as its user, and return what it prints."""
        return _docker("exec", self.container(service), "python", "-c", program)

    def select(self, service: str, query: str) -> list[list[Any]]:
        """Ask the service's database file, beside the running service."""
        program = (
            "import json, os, sqlite3;"
            f"path = os.path.join(os.environ['DUET_DATA_DIR'], {DATABASES[service]!r});"
            "database = sqlite3.connect(f'file:{path}?mode=ro', uri=True);"
            f"print(json.dumps(database.execute({query!r}).fetchall()))"
        )
        rows: list[list[Any]] = json.loads(self.python(service, program))
        return rows

    def logs(self, service: str) -> str:
        """Everything that the service has written so far."""
        return _docker("logs", self.container(service))

    def down(self) -> None:
        """Remove containers, volumes, network and images of this run."""
        self._run("down", "--volumes", "--rmi", "local", "--remove-orphans")

    def leftovers(self) -> str:
        """The containers and volumes of this run that are still there."""
        label = ("--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        return _docker("ps", "--all", *label) + _docker("volume", "ls", *label)

    def _run(self, *arguments: str) -> None:
        command = [*self._compose, "--project-name", self.project, *arguments]
        _checked(command, cwd=ROOT, environment=self._environment)


def _compose_command() -> list[str]:
    """`docker compose` where there is one, else `docker-compose`; the Makefile does the same."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if found := shutil.which("docker-compose"):
        return [found]
    raise FileNotFoundError("neither `docker compose` nor `docker-compose` is installed")


def _docker(*arguments: str) -> str:
    return _checked(["docker", *arguments])


def _checked(
    command: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def _answers_ok(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2.0).is_success
    except httpx.TransportError:
        return False


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as b:
        return one.getsockname()[1], b.getsockname()[1]
