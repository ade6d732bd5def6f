"""Who a connection was verified as. Pure."""

import msgspec

from shared.ids import SessionId, UserId
from shared.introspection import IssuedTokens
from shared.revocation import Revocation

__all__ = ["Identity"]


class Identity(msgspec.Struct, frozen=True):
    """What the profile service said about a token pair."""

    user_id: UserId
    username: str
    session_id: SessionId
    token_version: int
    expires_at: float
    """When the access token runs out, in seconds since the epoch."""
    tokens: IssuedTokens | None = None
    """New tokens to hand to the client; the gateway does not keep them."""

    def is_ended_by(self, revocation: Revocation) -> bool:
        """Whether a revocation ends the session this identity was verified in."""
        if revocation.user_id != self.user_id:
            return False
        match revocation.kind:
            case "session":
                return revocation.session_id == self.session_id
            case "all_sessions":
                return self.session_id != revocation.kept_session_id and (
                    revocation.token_version is None
                    or self.token_version < revocation.token_version
                )
            case "user_deleted":
                return True
