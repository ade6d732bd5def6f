"""Networks of one gateway that break, and those that swallow, while people talk across gateways."""

from collections.abc import Callable

from tests.faults.figures import Figure, Plan
from tests.faults.load import talking
from tests.faults.processes import lasting
from tests.faults.proxy import Proxy
from tests.scale.cluster import Node, pairs_across, running_cluster
from tests.scale.judgement import judge, live_again

__all__ = ["cut_from_nats", "cut_from_postgres"]

PEOPLE = 24


async def cut_from_nats(plan: Plan) -> list[Figure]:
    """One gateway of three cannot reach NATS."""
    return await _cut(plan, "NATS", lambda gateway: gateway.bus)


async def cut_from_postgres(plan: Plan) -> list[Figure]:
    """One gateway of three cannot reach PostgreSQL."""
    return await _cut(plan, "PostgreSQL", lambda gateway: gateway.database)


async def _cut(plan: Plan, what: str, network_of: Callable[[Node], Proxy]) -> list[Figure]:
    seconds, rounds, figures = plan.of(2, 20), plan.of(1, 3), []
    async with running_cluster(plan.directory / f"cut-from-{what.lower()}") as cluster:
        for how in ("cut off", "half-open"):
            people = await cluster.sign_up_many(PEOPLE)
            async with talking(pairs_across(cluster, people, pause_s=0.02)) as load:
                back_s = []
                for number in range(rounds):
                    await live_again(load)
                    network = network_of(cluster.gateways[number % len(cluster.gateways)])
                    if how == "cut off":
                        network.refusing = True
                        network.cut()
                    else:
                        network.stall()
                    before = load.acknowledged
                    await lasting(seconds)
                    during = load.acknowledged - before
                    network.refusing = False
                    network.flow()
                    back_s.append(await live_again(load))
                notes = (
                    f"{during} acknowledged meanwhile",
                    f"the slowest message took {load.slowest_arrival_s:.1f} s to its recipient",
                )
                fault = f"network between a gateway and {what} {how} for {seconds} s"
                also = during > 0
                figures.append(await judge(fault, rounds, cluster, load, back_s, *notes, also=also))
    return figures
