"""Gateways that do the same thing at once: one conversation, one client id, one session's end."""

import asyncio
import collections
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator

from shared.ids import UserId, conversation_id
from tests.faults.figures import Figure, Plan
from tests.faults.load import Pair, talking
from tests.faults.member import Member
from tests.faults.processes import Person
from tests.scale.cluster import Cluster, running_cluster
from tests.scale.judgement import judge, live_again
from tests.support.client import Client, Frame

__all__ = ["logged_out_everywhere", "one_conversation", "same_client_id"]


async def one_conversation(plan: Plan) -> list[Figure]:
    """Two people, each at another gateway, who write into one conversation as fast as they can."""
    messages = plan.of(500, 20_000)
    async with running_cluster(plan.directory / "one-conversation") as cluster:
        people = await cluster.sign_up_many(2)
        first, second, *_ = (gateway.url for gateway in cluster.gateways)
        one, other = people
        pair = Pair(Member([first], one, other, window=64), Member([second], other, one, window=64))
        async with talking([pair]) as load:
            await load.more_acknowledged(messages, within_s=120)
            back_s = await live_again(load)
            fault = "two gateways commit to one conversation at once"
            return [await judge(fault, messages, cluster, load, [back_s])]


async def same_client_id(plan: Plan) -> list[Figure]:
    """One person's two devices send the same id to two gateways in the same moment."""
    tries, chance = plan.of(30, 1000), random.Random(8)
    async with running_cluster(plan.directory / "same-client-id") as cluster:
        ann, bob = await cluster.sign_up_many(2)
        async with _devices(cluster, [(0, ann), (1, ann), (2, bob)]) as (first, second, bobs):
            wrong, conflicts = 0, 0
            for number in range(tries):
                texts = ["same", chance.choice(["same", "other"])]
                frames = await asyncio.gather(
                    *(
                        _send(device, bob, f"id-{number}", text)
                        for device, text in zip((first, second), texts, strict=True)
                    )
                )
                wrong += not _is_right(frames, texts)
                conflicts += any(frame["type"] == "error" for frame in frames)
                await bobs.expect("message", seq=number + 1)
            stored, _ = await cluster.stored()
            conversation = conversation_id(UserId(ann.user_id), UserId(bob.user_id))
            rows = [row for row in stored if row.conversation == conversation]
            tracebacks = cluster.tracebacks()
    return [
        Figure(
            fault="the same client id sent to two gateways at once",
            tries=tries,
            counted=f"{len(rows)} rows with seq 1 to {max(row.seq for row in rows)}; of {tries} "
            f"pairs of answers {wrong} other than one ack and its duplicate, or, for another text "
            f"({conflicts}), one ack and `conflict`; bob got each once",
            passed=not wrong
            and not tracebacks
            and sorted(row.seq for row in rows) == list(range(1, tries + 1)),
        )
    ]


def _is_right(frames: list[Frame], texts: list[str]) -> bool:
    kinds = collections.Counter(frame["type"] for frame in frames)
    if texts[0] != texts[1]:
        codes = [frame["code"] for frame in frames if frame["type"] == "error"]
        return kinds == {"ack": 1, "error": 1} and codes == ["conflict"]
    return (
        kinds == {"ack": 2}
        and sorted(frame["duplicate"] for frame in frames) == [False, True]
        and frames[0]["seq"] == frames[1]["seq"]
        and frames[0]["sent_at"] == frames[1]["sent_at"]
    )


async def _send(device: Client, to: Person, client_id: str, text: str) -> Frame:
    """Send, and return the answer: other frames come in between."""
    await device.send(type="send", id=client_id, to=to.user_id, text=text)
    async with asyncio.timeout(15):
        while True:
            frame: Frame = json.loads(await device.socket.recv())
            if frame["type"] in {"ack", "error"} and frame["id"] == client_id:
                return frame


async def logged_out_everywhere(plan: Plan) -> list[Figure]:
    """Log out of all devices, whose connections are at every gateway."""
    tries, took_s = plan.of(2, 20), []
    async with running_cluster(plan.directory / "logged-out-everywhere") as cluster:
        for _ in range(tries):
            (person,) = await cluster.sign_up_many(1)
            places = [(number % 3, person) for number in range(9)]
            async with _devices(cluster, places) as devices:
                answer = await cluster.http.delete("/v1/sessions", headers=person.bearer)
                answered_at = time.monotonic()
                assert answer.is_success, answer.text
                for device in devices:
                    await device.expect_error("session_ended")
                    code, _ = await device.closed()
                    assert code == 3000
                took_s.append(time.monotonic() - answered_at)
        tracebacks = cluster.tracebacks()
    return [
        Figure(
            fault="log out of all devices, at 3 gateways",
            tries=tries,
            counted=f"{9 * tries} connections closed with 3000, the last {max(took_s):.2f} s after "
            f"the answer; {tracebacks} tracebacks",
            passed=max(took_s) < 2 and not tracebacks,
        )
    ]


@contextlib.asynccontextmanager
async def _devices(
    cluster: Cluster, places: list[tuple[int, Person]]
) -> AsyncIterator[list[Client]]:
    """Connections of people at the gateways of these numbers."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Client.talking(cluster.gateways[number].url, person.access_token)
            )
            for number, person in places
        ]
