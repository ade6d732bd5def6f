"""NATS and PostgreSQL that go away, crash or are slow while people talk across gateways."""

import asyncio
import time

from tests.faults.figures import Figure, Plan, percentile
from tests.faults.load import talking
from tests.faults.processes import lasting
from tests.scale.cluster import pairs_across, running_cluster
from tests.scale.judgement import judge, live_again

__all__ = ["frozen_postgres", "lost_nats", "restarted_postgres", "slow_postgres"]

PEOPLE = 24
_AWAY_S = 2.0
"""How long PostgreSQL is away."""


async def lost_nats(plan: Plan) -> list[Figure]:
    """NATS is gone for a minute: people talk on, and hear of it a little later."""
    outage_s = plan.of(3, 60)
    async with running_cluster(plan.directory / "lost-nats") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people, pause_s=0.05)) as load:
            await live_again(load)
            await asyncio.to_thread(cluster.nats.kill)
            before, ready = load.acknowledged, 0
            await lasting(outage_s)
            during = load.acknowledged - before
            for gateway in cluster.gateways:
                await cluster.ready(gateway, within_s=1)
                ready += 1
            await asyncio.to_thread(cluster.nats.start)
            back_s = await live_again(load)
            notes = (
                f"{during} acknowledged meanwhile, {ready} of 3 gateways ready",
                f"the slowest message took {load.slowest_arrival_s:.1f} s to its recipient",
            )
            fault = f"NATS gone for {outage_s} s"
            return [await judge(fault, 1, cluster, load, [back_s], *notes, also=during > 0)]


async def restarted_postgres(plan: Plan) -> list[Figure]:
    """PostgreSQL is restarted in order, crashes, and loses its first process to SIGKILL."""
    rounds = plan.of(1, 10)
    async with running_cluster(plan.directory / "restarted-postgres") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        ends = {
            "restarted": cluster.postgres.stop,
            "crashed (all its processes)": cluster.postgres.crash,
            "killed (kill -9 of its first process)": cluster.postgres.kill,
        }
        figures = []
        for how, end in ends.items():
            async with talking(pairs_across(cluster, people)) as load:
                back_s = []
                for _ in range(rounds):
                    await load.more_acknowledged(300)
                    await asyncio.to_thread(end)
                    await lasting(_AWAY_S)
                    await asyncio.to_thread(cluster.postgres.start)
                    back_s.append(await live_again(load))
                fault = f"PostgreSQL {how}, away for {_AWAY_S:.0f} s"
                figures.append(await judge(fault, rounds, cluster, load, back_s))
                people = await cluster.sign_up_many(PEOPLE)
        return figures


async def frozen_postgres(plan: Plan) -> list[Figure]:
    """SIGSTOP to PostgreSQL: connections stay open, and nothing is answered."""
    rounds, seconds, back_s = plan.of(1, 3), plan.of(2, 15), []
    async with running_cluster(plan.directory / "frozen-postgres") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people)) as load:
            for _ in range(rounds):
                await load.more_acknowledged(300)
                cluster.postgres.freeze()
                await lasting(seconds)
                cluster.postgres.thaw()
                back_s.append(await live_again(load))
            fault = f"PostgreSQL frozen for {seconds} s"
            return [await judge(fault, rounds, cluster, load, back_s)]


async def slow_postgres(plan: Plan) -> list[Figure]:
    """The network to PostgreSQL delays every piece by 200 ms, there and back."""
    seconds = plan.of(4, 60)
    async with running_cluster(plan.directory / "slow-postgres") as cluster:
        people = await cluster.sign_up_many(PEOPLE)
        async with talking(pairs_across(cluster, people)) as load:
            await live_again(load)
            for node in cluster.nodes:
                node.database.delay_s = 0.2
            slow_from, before = time.monotonic(), load.acknowledged
            await lasting(seconds)
            rate = (load.acknowledged - before) / (time.monotonic() - slow_from)
            slow_s = [
                latency_s
                for member in load.members
                for at, latency_s in zip(member.acked_at, member.latencies_s, strict=True)
                if at > slow_from
            ]
            for node in cluster.nodes:
                node.database.delay_s = 0.0
            back_s = await live_again(load)
            note = f"{rate:.0f} messages/s meanwhile, ack p50 {percentile(slow_s, 0.5):.1f} s, "
            note += f"p99 {percentile(slow_s, 0.99):.1f} s"
            fault = f"PostgreSQL 200 ms away, each way, for {seconds} s"
            return [await judge(fault, 1, cluster, load, [back_s], note, also=rate > 0)]
