"""Others' test suites: Autobahn's fuzzing client and Schemathesis."""

import asyncio
import collections
import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from websockets.exceptions import ConnectionClosed

from shared.client_address import Networks
from shared.service_auth import ServiceCredentials
from tests.faults.figures import Figure, Plan
from tests.faults.processes import running_duet
from tests.support.profile_service import SERVICE_SECRET
from ws_gateway.delivery.outbox import Departures, OutboxLimits
from ws_gateway.protocol.errors import CloseCode
from ws_gateway.protocol.rate_limit import RateLimit
from ws_gateway.protocol.wire import text_frame
from ws_gateway.server import GatewayServer, ServerLimits
from ws_gateway.services import ConnectionServices
from ws_gateway.websocket import GatewayWebSocket

__all__ = ["autobahn", "schemathesis"]

_SHORT_CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.2.*", "7.*"]
_LONG_CASES = ["*"]
_EXCLUDED = {
    "9.*": "sends up to 16 MiB; duet.v1 takes 64 KiB a frame, which the wire cases try",
    "12.*": "needs compression, which the gateway leaves off",
    "13.*": "needs compression, which the gateway leaves off",
}
_EXPLAINED = {
    "7.1.5": "a close within a fragmented message gets 1002 from the library instead of 1000",
}
_GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
_NOT_HERE = (
    "no `wstest`: Autobahn's suite needs Python 2.7 (python2.7 -m virtualenv .autobahn; "
    ".autobahn/bin/pip install autobahntestsuite; DUET_WSTEST=.autobahn/bin/wstest); the wire "
    "cases follow its sections and ran"
)


async def autobahn(plan: Plan) -> list[Figure]:
    """Autobahn's fuzzing client against the gateway's server, answering with an echo."""
    fault = "Autobahn's fuzzing client against the gateway's server"
    wstest = shutil.which(os.environ.get("DUET_WSTEST", "wstest"))
    if wstest is None:
        return [Figure(fault=fault, tries=0, counted="", passed=False, skipped=_NOT_HERE)]
    report = plan.directory / "autobahn"
    async with _echo_server() as port:
        behaviors = await _fuzz(wstest, report, port, _LONG_CASES if plan.long else _SHORT_CASES)
    counts = collections.Counter(behaviors.values())
    failed = sorted(set(behaviors) - {case for case, seen in behaviors.items() if seen in _GOOD})
    unexplained = set(failed) - set(_EXPLAINED)
    return [
        Figure(
            fault=fault,
            tries=len(behaviors),
            counted=", ".join(f"{count} {name}" for name, count in counts.most_common())
            + f"; failed: {', '.join(sorted(unexplained)) or 'none'}"
            + "".join(f"; {case}: {_EXPLAINED.get(case)}" for case in failed if case in _EXPLAINED)
            + "; without 9.* (frames to 16 MiB), 12.* and 13.* (compression, which is off)",
            passed=len(behaviors) > 50 and not unexplained,
        )
    ]


async def _fuzz(wstest: str, report: Path, port: int, cases: list[str]) -> dict[str, str]:
    """Run the fuzzing client. Returns each case's behavior."""
    await asyncio.to_thread(report.mkdir, parents=True)
    specification = report / "specification.json"
    url = f"ws://127.0.0.1:{port}/v1/ws"
    specification.write_text(
        json.dumps(
            {
                "outdir": str(report),
                "servers": [{"agent": "duet", "url": url, "options": {"version": 18}}],
                "cases": cases,
                "exclude-cases": list(_EXCLUDED),
                "exclude-agent-cases": {},
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        wstest, "-m", "fuzzingclient", "-s", str(specification),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.STDOUT, cwd=report,
    )  # fmt: skip
    async with asyncio.timeout(600):
        await process.wait()
    found = json.loads((report / "index.json").read_text())["duet"]
    return {
        case: result["behavior"] if result["behaviorClose"] in _GOOD else result["behaviorClose"]
        for case, result in found.items()
    }


@contextlib.asynccontextmanager
async def _echo_server() -> AsyncIterator[int]:
    """The gateway's server and WebSocket, with an echo in place of the protocol on top."""

    async def always_ready() -> None:
        return None

    class EchoServer(GatewayServer):
        async def _handle(self, websocket: GatewayWebSocket) -> None:
            await _echo(websocket)

    server = EchoServer(
        cast(ConnectionServices, None),
        _LIMITS,
        Departures(asyncio.get_running_loop()),
        always_ready,
    )
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.drain(_settled, 1.0)


async def _settled() -> None:
    return


async def _echo(websocket: GatewayWebSocket) -> None:
    """Answer as `Connection` takes frames: whole text by the callback, all else by `recv`."""

    def on_text(raw: bytes | bytearray) -> None:
        try:
            raw.decode()
        except UnicodeDecodeError:
            websocket.begin_close(CloseCode.INVALID_DATA)
        else:
            websocket.write(text_frame(bytes(raw)))

    websocket.on_text = on_text
    with contextlib.suppress(ConnectionClosed):
        while True:
            await websocket.send(await websocket.recv())


_LIMITS = ServerLimits(
    allowed_origins=(),
    max_connections=100,
    max_connections_per_address=100,
    trusted_proxies=Networks([]),
    metrics_networks=Networks([]),
    max_frame_bytes=1_000_000,
    handshake_timeout_s=10,
    ping_interval_s=20,
    ping_timeout_s=15,
    close_timeout_s=5,
    outbox=OutboxLimits(),
    received_bytes=RateLimit(1e9, 1_000_000_000),
)


async def schemathesis(plan: Plan) -> list[Figure]:
    """Schemathesis with every check that applies, against the running profile service."""
    examples = plan.of(5, 100)
    async with running_duet(plan.directory / "schemathesis") as duet:
        person = await duet.sign_up()
        credentials = ServiceCredentials(SERVICE_SECRET.encode(), "schemathesis")
        results = []
        for internal in (False, True):
            header = credentials.authorization() if internal else f"Bearer {person.access_token}"
            results.append(await _schemathesis(duet.profile_url, header, examples, internal))
        tracebacks = duet.tracebacks()
    output = "\n".join(text for _, text in results)
    failed = [status for status, _ in results if status]
    return [
        Figure(
            fault="Schemathesis against the profile service's own OpenAPI",
            tries=sum(_generated(text) for _, text in results),
            counted=f"{_tail(output) if failed else 'no failure'}; {tracebacks} tracebacks",
            passed=not failed and not tracebacks,
        )
    ]


async def _schemathesis(
    url: str, authorization: str, examples: int, internal: bool
) -> tuple[int, str]:
    executable = Path(sys.executable).with_name("schemathesis")
    paths: list[str] = (
        ["--include-path-regex", "^/internal"]
        if internal
        else ["--exclude-path-regex", "^/internal"]
    )
    process = await asyncio.create_subprocess_exec(
        str(executable), "run", f"{url}/openapi.json",
        "--header", f"Authorization: {authorization}",
        "--max-examples", str(examples),
        "--checks", "all",
        "--exclude-checks", "positive_data_acceptance,negative_data_rejection",
        "--phases", "examples,coverage,fuzzing",
        "--exclude-operation-id", "end_all",
        "--exclude-operation-id", "end_current",
        "--exclude-operation-id", "follow_revocations",
        "--generation-database", "none",
        "--no-color",
        *paths,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def _generated(output: str) -> int:
    words: list[Any] = output.split()
    return next(
        (int(a) for a, b in itertools.pairwise(words) if b.startswith("generated") and a.isdigit()),
        0,
    )


def _tail(output: str) -> str:
    return " ".join(output.split())[-600:]
