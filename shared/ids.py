"""Identifiers: their types, how they are made, and how to tell one from another in a log.

Every identifier is a short prefix that names its kind, then lower-case base32 (RFC 4648, without
padding), so that it survives a URL, a shell and a double click.
"""

import base64
import hashlib
import random
import secrets
from typing import NewType

UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)
ConnectionId = NewType("ConnectionId", str)
ConversationId = NewType("ConversationId", str)

MAX_ID_CHARACTERS = 64


def new_user_id() -> UserId:
    """Make the identifier of a new user. This never repeats: it carries 128 random bits."""
    return UserId("u_" + _base32(secrets.token_bytes(16)))


def new_session_id() -> SessionId:
    """Make the identifier of a new session, one for each logged-in device."""
    return SessionId("s_" + _base32(secrets.token_bytes(16)))


def new_connection_id() -> ConnectionId:
    """Make the identifier of one WebSocket connection: for logs and support, no secret."""
    return ConnectionId("n_" + _base32(random.randbytes(8)))  # noqa: S311


def conversation_id(one: UserId, other: UserId) -> ConversationId:
    """Derive the identifier of the conversation between two users.

    This needs no database and is the same for both: it hashes the sorted pair to 128 bits.
    """
    low, high = sorted((one, other))
    digest = hashlib.sha256(f"{low} {high}".encode()).digest()
    return ConversationId("c_" + _base32(digest[:16]))


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
