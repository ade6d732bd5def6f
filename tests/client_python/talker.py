"""A process that sends numbered messages and prints what it has queued, to be killed in between.

`python talker.py PROFILE_URL GATEWAY_URL CREDENTIALS STATE RECIPIENT FIRST LAST`: queues the
numbers from FIRST to LAST, and ends when everything that the state holds is acknowledged.
"""

import asyncio
import sys
from pathlib import Path

import duet_client


async def main(arguments: list[str]) -> None:
    profile_url, gateway_url, credentials, state, recipient, first, last = arguments
    async with duet_client.connect(
        profile_url,
        gateway_url,
        duet_client.FileCredentials(Path(credentials)),
        state=state,
        trust_env=False,
        backoff=duet_client.Backoff(first_s=0.02, longest_s=0.2),
    ) as me:
        for number in range(int(first), int(last) + 1):
            await me.send(recipient, str(number), message_id=f"{recipient} {number}")
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
        async for _ in me.events():
            if not me.queued:
                break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
