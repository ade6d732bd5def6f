"""Routes about logged-in devices: log in, refresh, list, log out."""

from starlette.responses import Response

from profile_service.accounts import Accounts
from profile_service.external_accounts import ExternalAccounts
from profile_service.http_api.account_routes import client_of, granted, set_up
from profile_service.http_api.bodies import (
    AccessGrant,
    ExchangeToken,
    LogIn,
    Refresh,
    SessionItem,
    SessionList,
    TokenGrant,
    timestamp,
)
from profile_service.http_api.operation import Auth, Call, Operation, json_response
from profile_service.records import LoggedIn
from profile_service.rotation import Session
from profile_service.sessions import Sessions
from shared.ids import SessionId

__all__ = ["SessionRoutes"]


class SessionRoutes:
    """Handlers of `/v1/sessions` and `/v1/token`."""

    def __init__(
        self, accounts: Accounts, sessions: Sessions, external: ExternalAccounts | None
    ) -> None:
        self._accounts = accounts
        self._external = external
        self._sessions = sessions

    def operations(self) -> list[Operation]:
        """The rows of the route table; `external` and `current` come before the identifiers."""
        return [
            *self._of_sessions(),
            *self._of_exchange(),
            *self._of_one_session(),
            *self._of_tokens(),
        ]

    def _of_sessions(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/sessions",
                summary="Log in: open a session for this device.",
                handler=self.log_in,
                body=LogIn,
                replies={201: AccessGrant},
                reply_headers={"Location": "Where to log this device out again."},
                problems=("invalid_credentials", "too_many_attempts", "overloaded"),
            ),
            Operation(
                method="GET",
                path="/v1/sessions",
                summary="List the own logged-in devices, the oldest first.",
                handler=self.list_sessions,
                auth=Auth.BEARER,
                replies={200: SessionList},
            ),
            Operation(
                method="DELETE",
                path="/v1/sessions",
                summary="Log out of all devices: every token issued so far is dead.",
                handler=self.end_all,
                auth=Auth.BEARER,
                replies={204: None},
            ),
        ]

    def _of_exchange(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/sessions/external",
                summary="Log in with a token of the embedder's identity provider, which makes the "
                "account at first sight.",
                handler=self.exchange,
                body=ExchangeToken,
                replies={201: AccessGrant},
                reply_headers={"Location": "Where to log this device out again."},
                problems=(
                    "invalid_external_token",
                    "external_sign_in_off",
                    "too_many_attempts",
                    "identity_provider_unavailable",
                ),
            ),
        ]

    def _of_one_session(self) -> list[Operation]:
        return [
            Operation(
                method="DELETE",
                path="/v1/sessions/current",
                summary="Log out this device.",
                handler=self.end_current,
                auth=Auth.BEARER,
                replies={204: None},
                problems=("session_not_found",),
            ),
            Operation(
                method="DELETE",
                path="/v1/sessions/{session_id}",
                summary="Log out one of the own devices.",
                handler=self.end,
                auth=Auth.BEARER,
                replies={204: None},
                problems=("session_not_found",),
            ),
        ]

    def _of_tokens(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/token",
                summary="Exchange a refresh token for a new pair. Repeat it if the answer is lost.",
                handler=self.refresh,
                body=Refresh,
                replies={200: TokenGrant},
                problems=("invalid_grant", "too_many_attempts"),
            ),
        ]

    async def log_in(self, call: Call) -> Response:
        body: LogIn = call.body
        opened = await self._accounts.log_in(
            body.username, body.password, body.device_name, client_of(call)
        )
        return _opened(opened)

    async def exchange(self, call: Call) -> Response:
        body: ExchangeToken = call.body
        return _opened(
            await set_up(self._external).open_session(body.token, body.device_name, client_of(call))
        )

    async def refresh(self, call: Call) -> Response:
        body: Refresh = call.body
        refreshed = await self._sessions.refresh(body.refresh_token, address=call.address)
        return json_response(TokenGrant.of(refreshed.tokens, refreshed.live.session.id))

    async def list_sessions(self, call: Call) -> Response:
        sessions = await self._sessions.list_of(call.caller)
        return json_response(
            SessionList(sessions=[_item(session, call.caller.session.id) for session in sessions])
        )

    async def end(self, call: Call) -> Response:
        session_id = SessionId(call.request.path_params["session_id"])
        await self._sessions.end(call.caller, session_id, address=call.address)
        return Response(status_code=204)

    async def end_current(self, call: Call) -> Response:
        await self._sessions.end(call.caller, call.caller.session.id, address=call.address)
        return Response(status_code=204)

    async def end_all(self, call: Call) -> Response:
        await self._sessions.end_all(call.caller, address=call.address)
        return Response(status_code=204)


def _opened(opened: LoggedIn) -> Response:
    headers = {"Location": f"/v1/sessions/{opened.session.id}"}
    return json_response(granted(opened), 201, headers)


def _item(session: Session, current: SessionId) -> SessionItem:
    return SessionItem(
        id=session.id,
        device_name=session.device_name,
        user_agent=session.user_agent,
        created_at=timestamp(session.created_at_ms),
        refreshed_at=timestamp(session.rotated_at_ms),
        expires_at=timestamp(session.expires_at_ms),
        current=session.id == current,
    )
