"""A clock that jumps five minutes, either way: nobody is logged out, no time goes back."""

import itertools
from pathlib import Path

import pytest

from shared.ids import UserId
from tests.support.gateway import running_gateway
from tests.support.manual_clock import ManualClock as GatewayClock
from tests.support.profile_service import (
    ManualClock,
    bearer,
    fast_settings,
    running_service,
)

JUMP_S = 300


@pytest.mark.parametrize("jump_s", [-JUMP_S, JUMP_S])
async def test_sessions_outlive_a_jump_of_the_profile_services_clock(
    tmp_path: Path, jump_s: int
) -> None:
    clock = ManualClock()
    async with running_service(fast_settings(tmp_path), clock=clock) as service:
        granted = await service.sign_up("ann")
        clock.advance(jump_s)
        me = await service.client.get("/v1/users/me", headers=bearer(granted))
        assert me.status_code == 200
        (verdict,) = await service.introspect({"access_token": granted["access_token"]})
        assert verdict["active"]
        for _ in range(3):  # and refreshing goes on, through the jump back too
            body = {"refresh_token": granted["refresh_token"]}
            answer = await service.client.post("/v1/token", json=body)
            assert answer.status_code == 200
            granted = answer.json()
            clock.advance(-jump_s)
            jump_s = -jump_s
        await service.log_in("ann")


async def test_times_of_messages_never_go_back(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    clock = GatewayClock(now)
    async with running_gateway(tmp_path, now=clock) as gateway:
        ann = gateway.profile.sign_up("ann", expires_in_s=100_000)
        bob = gateway.profile.sign_up("bob", expires_in_s=100_000)
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            sent_at = []
            for number, jump_s in enumerate((0, -JUMP_S, JUMP_S, JUMP_S, -JUMP_S, -JUMP_S)):
                clock.advance(jump_s)
                ack = await a.say(UserId(bob.user_id), "tick", f"{number}")
                sent_at.append(ack["sent_at"])
                await b.expect("message", seq=number + 1)
    assert all(earlier <= later for earlier, later in itertools.pairwise(sent_at))
