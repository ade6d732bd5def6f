"""The containers of one run, under a project name and ports of their own."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
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
PASSWORDS = (
    "DUET_POSTGRES_PASSWORD",
    "DUET_PROFILE_DATABASE_PASSWORD",
    "DUET_GATEWAY_DATABASE_PASSWORD",
    "DUET_BUS_PASSWORD",
    "DUET_SERVICE_SECRET",
)
HEALTHY_WITHIN_S = 60.0
POLL_S = 0.1


class ComposeProject:
    """The containers of one compose file, under a project name of their own.

    A developer's own containers are not touched. Every method blocks; use a thread beside an event
    loop.
    """

    def __init__(self, file: str, environment: dict[str, str], ready_urls: Sequence[str]) -> None:
        """The project is up when each of `ready_urls` answers that it is ready."""
        self.project = f"duet-test-{secrets.token_hex(4)}"
        inherited = {key: value for key, value in os.environ.items() if key[:5] != "DUET_"}
        self._environment = {**inherited, **environment}
        self._ready_urls = ready_urls
        self._compose = [*_compose_command(), "--project-name", self.project, "--file", file]

    def up(self) -> None:
        """Build, start in the background and wait until everything answers that it is ready."""
        self.compose("up", "--build", "--detach")
        self.wait_until_ready()

    def start(self, service: str) -> None:
        """Start a service that was killed, and wait until everything is ready."""
        self.compose("start", service)
        self.wait_until_ready()

    def kill(self, service: str) -> None:
        """End a service as a crash would: SIGKILL, nothing is flushed or closed."""
        _docker("kill", "--signal", "KILL", self.container(service))

    def stop(self, service: str) -> None:
        """Ask a service to stop, with the grace that the compose file gives it."""
        self.compose("stop", service)

    def wait_until_ready(self) -> None:
        """Ask through the published ports until everything is ready.

        Raises:
            TimeoutError: something was not within the time; the message has the logs.
        """
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        for url in self._ready_urls:
            while not _answers_ok(url):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{url} is not ready:\n{self.compose('logs', '--tail=50')}")
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

    def logs(self, service: str) -> str:
        """Everything that the service has written so far."""
        return _docker("logs", self.container(service))

    def down(self) -> None:
        """Remove containers, volumes, network and images of this run."""
        self.compose("down", "--volumes", "--rmi", "local", "--remove-orphans")

    def leftovers(self) -> str:
        """The containers and volumes of this run that are still there."""
        label = ("--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        return _docker("ps", "--all", *label) + _docker("volume", "ls", *label)

    def compose(self, *arguments: str) -> str:
        """Run a command of compose. Returns what it wrote."""
        return _checked([*self._compose, *arguments], ROOT, self._environment)

    def script(self, path: str) -> str:
        """Run one of our scripts that takes the compose command. Returns what it wrote."""
        return _checked(["sh", path, *self._compose], ROOT, self._environment)


class Stack(ComposeProject):
    """Both services of docker-compose.yml."""

    def __init__(self) -> None:
        profile_port, gateway_port = _free_ports()
        self.http_url = f"http://127.0.0.1:{profile_port}"
        self.websocket_url = f"ws://127.0.0.1:{gateway_port}/v1/ws"
        environment = {
            "DUET_PUBLISHED_PROFILE_PORT": str(profile_port),
            "DUET_PUBLISHED_GATEWAY_PORT": str(gateway_port),
            **WITHOUT_LIMITS,
        }
        ready_urls = (f"{self.http_url}/readyz", f"http://127.0.0.1:{gateway_port}/readyz")
        super().__init__("docker-compose.yml", environment, ready_urls)

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


class ScaleStack(ComposeProject):
    """Everything of docker-compose.scale.yml behind its one port."""

    gateways = ("ws-gateway-1", "ws-gateway-2", "ws-gateway-3")
    profile_services = ("profile-service-1", "profile-service-2")

    def __init__(self) -> None:
        port, _ = _free_ports()
        self.http_url = f"http://127.0.0.1:{port}"
        self.websocket_url = f"ws://127.0.0.1:{port}/v1/ws"
        passwords = {name: secrets.token_hex(32) for name in PASSWORDS}
        environment = {"DUET_PUBLISHED_PORT": str(port), **passwords, **WITHOUT_LIMITS}
        super().__init__("docker-compose.scale.yml", environment, [f"{self.http_url}/readyz"])

    def up(self) -> None:
        """Build, start in the background and wait until every service is ready."""
        super().up()
        for service in (*self.profile_services, *self.gateways):
            self.wait_until_healthy(service)

    def roll(self) -> None:
        """Replace the services one after the other, as `make roll` does."""
        self.script("deploy/roll.sh")

    def switch_tls_on(self, certificates: Path) -> None:
        """Have nginx speak TLS on the same port, with what is in that folder."""
        self._environment |= {"DUET_LISTEN": "tls", "DUET_TLS_DIR": str(certificates)}
        self.compose("up", "--detach", "--no-deps", "nginx")
        self.wait_until_healthy("nginx")

    def users_at(self, gateway: str) -> int:
        """How many people are connected to a gateway."""
        program = (
            "import urllib.request;"
            "text = urllib.request.urlopen('http://127.0.0.1:8765/metrics').read().decode();"
            "print(next(x.split()[1] for x in text.splitlines()"
            " if x.startswith('duet_gateway_users ')))"
        )
        return int(float(self.python(gateway, program)))


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
