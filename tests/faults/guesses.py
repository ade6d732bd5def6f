"""What a guesser can measure."""

import statistics
import time

import httpx

from tests.faults.figures import Figure, Plan
from tests.faults.processes import Duet, running_duet

__all__ = ["login_timing"]

MAX_DIFFERENCE = 0.05


async def login_timing(plan: Plan) -> list[Figure]:
    """By turns, log in as somebody unknown, and as somebody known with a wrong password."""
    tries = plan.of(40, 500)
    # Cheaper than the default, so that whatever differs beside the hash weighs more.
    async with running_duet(plan.directory / "timing", DUET_ARGON2_MEMORY_KIB="8192") as duet:
        person = await duet.sign_up()
        known, unknown = [], []
        for _ in range(tries):
            known.append(await _refused_after(duet, person.username))
            unknown.append(await _refused_after(duet, "nobody-here"))
        tracebacks = duet.tracebacks()
    ratio = statistics.median(known) / statistics.median(unknown)
    bound = MAX_DIFFERENCE if plan.long else 0.25  # few tries beside other work
    return [
        Figure(
            fault="time of an unknown user against a wrong password",
            tries=2 * tries,
            counted=f"medians {statistics.median(known) * 1000:.2f} ms (wrong password) and "
            f"{statistics.median(unknown) * 1000:.2f} ms (unknown user): ratio {ratio:.3f}",
            passed=abs(ratio - 1) < bound and not tracebacks,
        )
    ]


async def _refused_after(duet: Duet, username: str) -> float:
    started = time.perf_counter()
    answer = await duet.http.post(
        "/v1/sessions", json={"username": username, "password": "not the password"}
    )
    assert answer.status_code == httpx.codes.UNAUTHORIZED
    return time.perf_counter() - started
