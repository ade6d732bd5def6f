"""Erases the messages of people who deleted their account, and finishes it after a restart."""

import asyncio

import structlog

from shared.ids import UserId
from ws_gateway.messenger import Messenger
from ws_gateway.ports import PeopleStore, StoreUnavailable

__all__ = ["Eraser"]

_RETRY_S = 5.0

_log = structlog.get_logger(__name__)


class Eraser:
    """Works off the list of users to erase. `run` must be running.

    Of several gateways each erases whom it hears of, even when another was faster: it may have
    stored something of theirs in between.
    """

    def __init__(self, messenger: Messenger, people: PeopleStore) -> None:
        self._messenger = messenger
        self._people = people
        self._deleted: dict[UserId, None] = {}
        self._wake = asyncio.Event()

    def user_deleted(self, user_id: UserId) -> None:
        """A user has deleted the account, and is on the list."""
        self._messenger.refuse_changes_of(user_id)
        self._deleted[user_id] = None
        self.wake()

    def wake(self) -> None:
        """There is somebody on the list."""
        self._wake.set()

    async def run(self) -> None:
        """Erase whoever is on the list, for ever."""
        self._wake.set()  # an earlier life may have left work
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                listed = await self._people.users_to_erase()
                for user_id in {**self._deleted, **dict.fromkeys(listed)}:
                    await self._messenger.erase(user_id)
                    await self._people.finish_erasure(user_id)
                    self._deleted.pop(user_id, None)
                    _log.info("erased a user's messages", user_id=user_id)
            except StoreUnavailable as error:
                _log.warning("an erasure was put off", reason=str(error))
                asyncio.get_running_loop().call_later(_RETRY_S, self._wake.set)
