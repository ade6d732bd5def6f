"""Who does not read is not read from, and who is too fast waits: floods cost no memory."""

import asyncio
import contextlib
import json
from pathlib import Path

from websockets.frames import Frame, Opcode

from tests.support.gateway import running_gateway
from tests.support.raw_socket import RawSocket

_BOUND = 65_536
_KERNEL_BYTES = 2_000_000
"""More than both kernels' buffers of one connection hold."""


async def test_flood_of_a_client_that_reads_nothing_is_soon_taken_no_more(tmp_path: Path) -> None:
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 500
    async with running_gateway(tmp_path, outbox_max_bytes=_BOUND, outbox_grace_s=60) as gateway:
        ann = gateway.profile.sign_up("ann")
        async with RawSocket.open(gateway.url) as flooder:
            await flooder.connect(ann.access_token)
            taken = 0
            with contextlib.suppress(TimeoutError):
                while taken < 10 * _KERNEL_BYTES:
                    async with asyncio.timeout(0.5):
                        await flooder.send_bytes(ping)
                    taken += len(ping)
            assert taken < 10 * _KERNEL_BYTES
            assert gateway.connections_of(ann.user_id) == 1


async def test_client_that_is_read_no_further_is_served_again_once_it_reads(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, outbox_max_bytes=_BOUND, outbox_grace_s=60) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with RawSocket.open(gateway.url) as slow, gateway.talking(bob) as b:
            await slow.connect(ann.access_token)
            count = 300
            for number in range(count):
                await b.say(ann.user_id, "x" * 4000, f"{number}")
            await slow.send_text(
                json.dumps({"type": "send", "id": "late", "to": bob.user_id, "text": "hello"})
            )
            seen = []
            while "ack" not in seen:
                seen.append(json.loads(bytes((await slow.read_frame()).data))["type"])
            assert seen.count("message") == count


async def test_client_that_is_too_fast_is_answered_and_waits(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, messages_per_s=1000, message_burst=1) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a:
            for number in range(3):
                await a.send(type="send", id=f"{number}", to=bob.user_id, text="hi")
            answers = [json.loads(await a.socket.recv()) for _ in range(3)]
            refused = [answer for answer in answers if answer["type"] == "error"]
            assert {answer["code"] for answer in refused} == {"rate_limited"}
            assert {answer["id"] for answer in answers} == {"0", "1", "2"}
            await a.say(bob.user_id, "hi", refused[0]["id"])
