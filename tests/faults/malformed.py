"""Everything in the table of wire cases, and what it leaves behind."""

import asyncio
import json

from websockets.frames import Frame, Opcode

from tests.faults.figures import Figure, Plan
from tests.faults.processes import UNHURRIED, Person, running_duet
from tests.faults.wire_cases import CASES, Case
from tests.support.client import Client
from tests.support.raw_socket import RawSocket

__all__ = ["malformed_input", "outcome_of"]

_LAST = b"still there?"
_GOES_ON = Frame(Opcode.PING, _LAST).serialize(mask=True)


async def malformed_input(plan: Plan) -> list[Figure]:
    """Each wire case against the real process, round after round."""
    rounds = plan.of(1, 3)
    wrong: list[str] = []
    async with running_duet(plan.directory / "malformed-input", **UNHURRIED) as duet:
        person = await duet.sign_up()
        memory = 0
        for number in range(rounds):
            for case in CASES:
                found = await outcome_of(duet.url, person, case)
                if found is not None:
                    wrong.append(f"{case.name}: {found}")
            if number == 0:
                memory = duet.memory_bytes("ws_gateway")
        growth = duet.memory_bytes("ws_gateway") - memory
        async with Client.talking(duet.url, person.access_token) as client:
            await client.nothing_more(person.user_id)
        tracebacks = duet.tracebacks()
    return [
        Figure(
            fault=f"{len(CASES)} cases of malformed, oversized and unusual frames",
            tries=rounds * len(CASES),
            counted=f"{len(wrong)} with another close code or answer than documented"
            f"{': ' + '; '.join(wrong[:50]) if wrong else ''}; {tracebacks} tracebacks; "
            f"memory grew by {growth / 1e6:.1f} MB after the first round",
            passed=not wrong and not tracebacks and growth < 50_000_000,
        )
    ]


async def outcome_of(url: str, person: Person, case: Case) -> str | None:
    """Try a case. Returns what is wrong, or nothing when it ended as it must."""
    async with RawSocket.open(url) as socket:
        await socket.connect(person.access_token)
        data = case.data if case.close is not None else case.data + _GOES_ON
        for start in range(0, len(data), 1 if case.octetwise else len(data)):
            await socket.send_bytes(data[start : start + (1 if case.octetwise else len(data))])
            if case.octetwise:
                await asyncio.sleep(0)
        goes_on = () if case.close is not None else (_LAST,)
        owed = {Opcode.TEXT: list(case.answers), Opcode.PONG: [*case.pongs, *goes_on]}
        try:
            while case.close is not None or any(owed.values()):
                frame = await socket.read_frame()
                payload = bytes(frame.data)
                if frame.opcode is Opcode.CLOSE:
                    return _closed(case, int.from_bytes(payload[:2]) if payload else 1005, owed)
                if frame.opcode is Opcode.TEXT and json.loads(payload)["type"] != "error":
                    continue
                expected = owed.get(frame.opcode)
                if not expected or expected.pop(0) not in payload:
                    return f"unexpected {payload[:80]!r}"
        except (asyncio.IncompleteReadError, ConnectionError):
            return f"ended without a close; owed {owed}"
    return None


def _closed(case: Case, code: int, owed: dict[Opcode, list[bytes]]) -> str | None:
    if code != case.close:
        return f"closed with {code} instead of {case.close}"
    return f"owed {owed}" if any(owed.values()) else None
