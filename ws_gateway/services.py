"""What every connection of a gateway works with."""

import time
from collections.abc import Callable

import msgspec

from shared.ids import UserId
from ws_gateway.delivery.broadcast import LiveLog
from ws_gateway.delivery.connection_map import ConnectionMap
from ws_gateway.delivery.rendering import Rendering
from ws_gateway.enquiries import Enquiries
from ws_gateway.messenger import Messenger
from ws_gateway.metrics import Metrics
from ws_gateway.ports import IdentityVerifier, MessageStore
from ws_gateway.presence import Presence
from ws_gateway.protocol import frames
from ws_gateway.protocol.cursor import Cursors
from ws_gateway.protocol.rate_limit import TokenBucket
from ws_gateway.protocol.session import SessionLimits
from ws_gateway.revocations import RevocationWatch

__all__ = ["ConnectionServices"]


class ConnectionServices(msgspec.Struct, frozen=True, kw_only=True):
    """One for each gateway; connections share it and change nothing in it."""

    verifier: IdentityVerifier
    store: MessageStore
    live: LiveLog
    messenger: Messenger
    enquiries: Enquiries
    presence: Presence
    connections: ConnectionMap
    revocations: RevocationWatch
    rendering: Rendering
    cursors: Cursors
    metrics: Metrics
    limits: frames.Limits
    session_limits: SessionLimits
    bucket_of: Callable[[UserId], TokenBucket]
    now: Callable[[], float] = time.time
