"""Writes, edits and deletes as fast as it can, until it is killed (a process of its own).

Arguments: the database, and what to choose by. A line is printed for each round.
"""

import asyncio
import functools
import random
import sys
import uuid
from pathlib import Path

from tests.support.talk import ANN, BOB, delete, edit
from ws_gateway.adapters.sqlite_stores import open_sqlite_stores
from ws_gateway.conversations import Appended, Draft, Message

__all__: list[str] = []

_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


async def _write(path: Path, choice: random.Random) -> None:
    def text() -> str:
        return " ".join(choice.choices(_WORDS, k=5))

    said: list[Message] = []
    async with open_sqlite_stores(path) as stores:
        while True:
            drafts = [Draft(ANN, BOB, uuid.uuid4().hex, text()) for _ in range(20)]
            outcomes = await stores.messages.append_batch(drafts, 1)
            said += [outcome.event.message for outcome in outcomes if isinstance(outcome, Appended)]
            for message in choice.choices(said, k=5):
                await edit(stores.messages, message, text(), request_id=uuid.uuid4().hex)
            for message in choice.choices(said, k=5):
                await delete(stores.messages, message, request_id=uuid.uuid4().hex)
            looks = iter([False] * choice.randrange(8))
            await stores.tidy_up(functools.partial(next, looks, True))
            sys.stdout.write("\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_write(Path(sys.argv[1]), random.Random(sys.argv[2])))
