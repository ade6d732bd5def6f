"""Where an application begins: `connect`."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from duet_client.account import Account
from duet_client.backoff import Backoff
from duet_client.client import Client
from duet_client.credentials import CredentialStore, Tokens
from duet_client.engine import Engine
from duet_client.errors import ServiceUnreachable
from duet_client.lifecycle import Lifecycle
from duet_client.link import DEFAULT_GATEWAY_URL, LinkOptions
from duet_client.profile_api import DEFAULT_PROFILE_URL
from duet_client.state import State

__all__ = ["connect"]


@contextlib.asynccontextmanager
async def connect(
    profile_url: str = DEFAULT_PROFILE_URL,
    gateway_url: str = DEFAULT_GATEWAY_URL,
    credentials: Tokens | CredentialStore | None = None,
    *,
    state: Path | str,
    connect_timeout_s: float = 10.0,
    answer_timeout_s: float = 15.0,
    ping_interval_s: float = 20.0,
    ping_timeout_s: float = 15.0,
    max_waiting_events: int = 1000,
    sends_received: bool = True,
    backoff: Backoff | None = None,
    ssl_context: ssl.SSLContext | None = None,
    trust_env: bool = True,
) -> AsyncIterator[Client]:
    """Connect a person, and stay connected until the block is left. This is where to begin.

    `credentials` are tokens of `log_in` or `sign_up`, or a store that keeps them
    (`FileCredentials`, `KeyringCredentials`) and survives this process: tokens change every few
    minutes. `state` is a file of one user's one running client, made when there is none;
    `:memory:` gives up what is queued when the process ends. Leaving the block takes less than a
    second; what is not acknowledged by then stays in `state` and is sent by the next client on it.

    `connect_timeout_s` is how long to wait for the first connection; 0 does not wait: a client that
    is offline queues what it sends. `answer_timeout_s` without an answer breaks a connection off.

    Raises:
        LoginRequired: the credentials are dead or missing.
        ServiceUnreachable: no connection within `connect_timeout_s`; nothing queued is lost.
        StateInUse, WrongState, StateError: `state` cannot be used.
        ConnectionEnded: the gateway does not want this client.
    """
    options = LinkOptions(
        gateway_url,
        ssl_context=ssl_context,
        trust_env=trust_env,
        ping_interval_s=ping_interval_s,
        ping_timeout_s=ping_timeout_s,
    )
    async with contextlib.AsyncExitStack() as stack:
        account = await stack.enter_async_context(
            Account(profile_url, credentials, ssl_context=ssl_context, trust_env=trust_env)
        )
        tokens = await account.keeper.tokens()
        kept = await State.open(state)
        stack.push_async_callback(kept.close)
        engine = Engine(
            options,
            account,
            Lifecycle(backoff or Backoff()),
            kept,
            stored=await kept.load(tokens.user_id),
            user_id=tokens.user_id,
            answer_timeout_s=answer_timeout_s,
            max_waiting_events=max_waiting_events,
            sends_received=sends_received,
        )
        engine.start()
        stack.push_async_callback(engine.close)
        client = Client(engine, account, tokens, answer_timeout_s)
        if connect_timeout_s:
            await _first_connection(client, engine, connect_timeout_s)
        yield client


async def _first_connection(client: Client, engine: Engine, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await client.wait_connected()
    except TimeoutError:
        raise ServiceUnreachable(
            f"no connection within {timeout_s:g} s: {engine.lost_because}"
        ) from None
