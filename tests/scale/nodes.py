"""Gateways and profile services that die, freeze or are replaced while people talk across them."""

import asyncio
import random
import signal
import time

import httpx

from tests.faults.figures import Figure, Plan
from tests.faults.load import talking
from tests.faults.processes import lasting
from tests.scale.cluster import Cluster, pairs_across, running_cluster
from tests.scale.judgement import judge, live_again
from tests.support.profile_service import PASSWORD

__all__ = ["frozen_gateway", "killed_gateway", "killed_profile_service", "rolling_restart"]

PEOPLE = 24


async def killed_gateway(plan: Plan) -> list[Figure]:
    """SIGKILL to any gateway at a random moment; its clients go to the others."""
    tries, chance, back_s = plan.of(2, 30), random.Random(5), []
    async with running_cluster(plan.directory / "killed-gateway") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people)) as load:
            for _ in range(tries):
                await load.more_acknowledged(chance.randint(1, 400))
                gateway = chance.choice(cluster.gateways)
                await gateway.kill()
                back_s.append(await live_again(load))
                await cluster.start(gateway)
                await cluster.ready(gateway)
            return [await judge("kill -9 any of 3 gateways", tries, cluster, load, back_s)]


async def frozen_gateway(plan: Plan) -> list[Figure]:
    """SIGSTOP to any gateway, in the middle of a transaction now and then: it may hold locks."""
    tries, chance, back_s, others_s = plan.of(1, 10), random.Random(6), [], []
    async with running_cluster(plan.directory / "frozen-gateway") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people)) as load:
            for number in range(tries):
                await load.more_acknowledged(chance.randint(1, 400))
                gateway = cluster.gateways[number % len(cluster.gateways)]
                healthy = [
                    pair
                    for pair in load.pairs
                    if all(member.connected_to != gateway.url for member in pair.members)
                ]
                gateway.signal(signal.SIGSTOP)
                frozen_at = time.monotonic()
                await lasting(plan.of(2, 8))
                last = [member.acked_at[-1] for pair in healthy for member in pair.members]
                others_s.append(time.monotonic() - min(last, default=frozen_at))
                gateway.signal(signal.SIGCONT)
                back_s.append(await live_again(load))
            note = f"who is at other gateways waited for at most {max(others_s):.1f} s meanwhile"
            fault = f"freeze a gateway for {plan.of(2, 8)} s"
            return [await judge(fault, tries, cluster, load, back_s, note)]


async def rolling_restart(plan: Plan) -> list[Figure]:
    """SIGTERM and a new start, for one process after the other, as an upgrade does it."""
    rounds, back_s, statuses = plan.of(1, 5), [], set()
    async with running_cluster(plan.directory / "rolling-restart") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people, pause_s=0.005)) as load:
            for _ in range(rounds):
                for node in cluster.nodes:
                    await live_again(load)
                    stopping_at = time.monotonic()
                    statuses.add(await node.terminate())
                    back_s.append(await live_again(load, stopping_at))
                    await cluster.start(node)
                    await cluster.ready(node)
            note = f"exit statuses {sorted(statuses)}"
            fault = "rolling restart of 3 gateways and 2 profile services"
            return [await judge(fault, rounds, cluster, load, back_s, note)]


async def killed_profile_service(plan: Plan) -> list[Figure]:
    """SIGKILL to one of two profile services: the other goes on for everybody."""
    tries, chance, back_s = plan.of(2, 20), random.Random(7), []
    async with running_cluster(plan.directory / "killed-profile") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people, pause_s=0.005)) as load:
            signed_up, refused = 0, 0
            for number in range(tries):
                await load.more_acknowledged(chance.randint(1, 200))
                service = cluster.profile_services[number % 2]
                killed_at = time.monotonic()
                await service.kill()
                answers = await asyncio.gather(*(_sign_up(cluster, number, n) for n in range(5)))
                signed_up += sum(status == httpx.codes.CREATED for status in answers)
                refused += sum(status != httpx.codes.CREATED for status in answers)
                for member in load.members:
                    member.hang_up()
                back_s.append(await live_again(load, killed_at))
                await cluster.start(service)
                await cluster.ready(service)
            note = f"{signed_up} sign-ups at the other one, {refused} failed; everybody reconnected"
            fault = "kill -9 one of 2 profile services"
            return [await judge(fault, tries, cluster, load, back_s, note, also=not refused)]


async def _sign_up(cluster: Cluster, round_number: int, number: int) -> int:
    """Try as a client does: again after a broken connection. Returns the status."""
    body = {"username": f"late-{round_number}-{number}", "password": PASSWORD}
    while True:
        try:
            return (await cluster.http.post("/v1/users", json=body)).status_code
        except httpx.TransportError:
            await lasting(0.05)
