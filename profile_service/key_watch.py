"""Keeps the keys in use up to date: looks now and then, and when a token names an unknown one."""

import asyncio
from collections.abc import Callable

import structlog

from profile_service.ports import KeySource, StoreUnavailable
from profile_service.tokens import TokenAuthority

__all__ = ["KeyWatch"]

MIN_INTERVAL_S = 1.0
"""Between two looks for unknown keys: anybody can name one."""

_log = structlog.get_logger(__name__)


class KeyWatch:
    """Gives a `TokenAuthority` the keys of a source. Use it from one event loop.

    `monotonic` gives seconds of a clock that is never set back.
    """

    def __init__(
        self, source: KeySource, tokens: TokenAuthority, *, monotonic: Callable[[], float]
    ) -> None:
        self._source = source
        self._tokens = tokens
        self._monotonic = monotonic
        self._looking = asyncio.Lock()
        self._looked_at_s = float("-inf")
        self._failure: StoreUnavailable | None = None

    async def look(self) -> None:
        """Take new keys into use, if there are any. Keys that cannot be used are only logged.

        Raises:
            StoreUnavailable: it is not known whether there are.
        """
        try:
            keys = await self._source.load_if_changed()
        except StoreUnavailable as error:
            self._failure = error
            raise
        except Exception as error:  # a broken file must not stop a service that has good keys
            _log.error("keys_unusable", reason=str(error))
            return
        self._failure = None
        if keys is not None:
            self._tokens.keys = keys
            _log.info("keys_changed", kid=keys.signing_id, keys=len(keys.verifying))

    async def look_for_key_of(self, token: str) -> bool:
        """After a token was refused: tell whether its key has become known, so check it again.

        Raises:
            StoreUnavailable: its key is unknown, and the others cannot be read now.
        """
        if not self._tokens.lacks_key_of(token):
            return False
        async with self._looking:
            if self._monotonic() - self._looked_at_s >= MIN_INTERVAL_S:
                self._looked_at_s = self._monotonic()
                await self.look()
        if self._failure is not None:
            raise self._failure
        return not self._tokens.lacks_key_of(token)
