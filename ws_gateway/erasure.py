"""Erases the messages of people who deleted their account, and finishes it after a restart."""

import asyncio

import structlog

from ws_gateway.messenger import Messenger
from ws_gateway.ports import PeopleStore, StoreUnavailable

__all__ = ["Eraser"]

_RETRY_S = 5.0

_log = structlog.get_logger(__name__)


class Eraser:
    """Works off the list of users to erase whenever `wake` is called. `run` must be running."""

    def __init__(self, messenger: Messenger, people: PeopleStore) -> None:
        self._messenger = messenger
        self._people = people
        self._wake = asyncio.Event()
        self._wake.set()  # an earlier life may have left work

    def wake(self) -> None:
        """There is somebody on the list."""
        self._wake.set()

    async def run(self) -> None:
        """Erase whoever is on the list, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                for user_id in await self._people.users_to_erase():
                    await self._messenger.erase(user_id)
                    await self._people.finish_erasure(user_id)
                    _log.info("erased a user's messages", user_id=user_id)
            except StoreUnavailable as error:
                _log.warning("an erasure was put off", reason=str(error))
                asyncio.get_running_loop().call_later(_RETRY_S, self._wake.set)
