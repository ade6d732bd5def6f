"""The two profile services that the gateway's port is tested on, behind one set of deeds."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec

from shared.ids import SessionId, UserId
from shared.introspection import TokenPair
from tests.support.fake_profile import FakeProfile, FakeSession
from tests.support.manual_clock import ManualClock
from tests.support.profile_service import (
    PASSWORD,
    RunningService,
    bearer,
    fast_settings,
    running_service,
)
from tests.support.profile_service import ManualClock as ServiceClock
from ws_gateway.adapters.profile_client import ProfileClient
from ws_gateway.metrics import Metrics
from ws_gateway.ports import ProfileService

__all__ = ["Device", "FakeWorld", "ProfileWorld", "RealWorld"]


class Device(msgspec.Struct):
    """Where somebody is logged in."""

    user_id: UserId
    username: str
    session_id: SessionId
    tokens: TokenPair
    granted: Any = None


class ProfileWorld(Protocol):
    """What people do, and the port under test, which sees it."""

    port: ProfileService

    async def sign_up(self) -> Device: ...
    async def log_in(self, device: Device) -> Device:
        """Log another device of the same person in."""
        ...

    async def log_out(self, device: Device) -> None: ...
    async def log_out_everywhere(self, device: Device) -> None: ...
    async def change_password(self, device: Device) -> None: ...
    async def delete_user(self, device: Device) -> None: ...
    async def let_access_token_expire(self, device: Device) -> None: ...
    async def refresh_too_often(self, device: Device) -> str:
        """Refresh until the device has to wait; return the refresh token that it is left with."""
        ...

    async def break_down(self) -> None:
        """Make the profile service unreachable."""
        ...


class FakeWorld:
    """The fake."""

    def __init__(self) -> None:
        self.profile = FakeProfile()
        self.port: ProfileService = self.profile
        self._sessions: dict[SessionId, FakeSession] = {}

    async def sign_up(self) -> Device:
        return self._device(self.profile.sign_up(f"user-{secrets.token_hex(4)}"))

    async def log_in(self, device: Device) -> Device:
        return self._device(self.profile.log_in(device.user_id))

    async def log_out(self, device: Device) -> None:
        self.profile.log_out(self._sessions[device.session_id])

    async def log_out_everywhere(self, device: Device) -> None:
        self.profile.log_out_everywhere(device.user_id)

    async def change_password(self, device: Device) -> None:
        self.profile.change_password(self._sessions[device.session_id])

    async def delete_user(self, device: Device) -> None:
        self.profile.delete_user(device.user_id)

    async def let_access_token_expire(self, device: Device) -> None:
        self.profile.expire(self._sessions[device.session_id])

    async def refresh_too_often(self, device: Device) -> str:
        self.profile.refreshed_too_often.add(device.session_id)
        return device.tokens.refresh_token or ""

    async def break_down(self) -> None:
        self.profile.available = False

    def _device(self, session: FakeSession) -> Device:
        self._sessions[session.id] = session
        tokens = TokenPair(session.access_token, session.refresh_token)
        return Device(session.user_id, session.username, session.id, tokens)


class RealWorld:
    """A running profile service, and the adapter that talks to it over HTTP."""

    def __init__(
        self,
        service: RunningService,
        client: ProfileClient,
        clock: ServiceClock,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self.port: ProfileService = client
        self._service = service
        self._clock = clock
        self._stack = stack

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, data_dir: Path) -> AsyncIterator["RealWorld"]:
        """Run the service while the context lasts."""
        clock = ServiceClock(ManualClock()())
        async with contextlib.AsyncExitStack() as stack:
            service = await stack.enter_async_context(
                running_service(fast_settings(data_dir), clock=clock)
            )
            client = ProfileClient(
                f"http://127.0.0.1:{service.port}", service.credentials, Metrics()
            )
            try:
                yield cls(service, client, clock, stack)
            finally:
                await client.close()

    async def sign_up(self) -> Device:
        return await self._device(await self._service.sign_up())

    async def log_in(self, device: Device) -> Device:
        return await self._device(await self._service.log_in(device.username))

    async def log_out(self, device: Device) -> None:
        await self._request(device, "DELETE", "/v1/sessions/current")

    async def log_out_everywhere(self, device: Device) -> None:
        await self._request(device, "DELETE", "/v1/sessions")

    async def change_password(self, device: Device) -> None:
        body = {"current_password": PASSWORD, "new_password": "another horse battery staple"}
        await self._request(device, "PUT", "/v1/users/me/password", json=body)

    async def delete_user(self, device: Device) -> None:
        await self._request(device, "DELETE", "/v1/users/me", json={"password": PASSWORD})

    async def let_access_token_expire(self, device: Device) -> None:
        self._clock.advance(11 * 60)

    async def refresh_too_often(self, device: Device) -> str:
        refresh_token = device.tokens.refresh_token or ""
        while True:
            answer = await self._service.client.post(
                "/v1/token", json={"refresh_token": refresh_token}
            )
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                return refresh_token
            refresh_token = answer.json()["refresh_token"]

    async def break_down(self) -> None:
        await self._stack.aclose()

    async def _request(self, device: Device, method: str, path: str, **options: Any) -> None:
        answer = await self._service.client.request(
            method, path, headers=bearer(device.granted), **options
        )
        assert answer.is_success, answer.text

    async def _device(self, granted: dict[str, Any]) -> Device:
        tokens = TokenPair(granted["access_token"], granted["refresh_token"])
        (verdict,) = await self._service.introspect({"access_token": tokens.access_token})
        return Device(
            verdict["sub"], verdict["username"], SessionId(verdict["sid"]), tokens, granted
        )
