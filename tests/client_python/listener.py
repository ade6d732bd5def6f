"""A process that prints the text of each message it gets, to be killed in between.

`python listener.py PROFILE_URL GATEWAY_URL CREDENTIALS STATE`
"""

import asyncio
import sys
from pathlib import Path

import duet_client


async def main(arguments: list[str]) -> None:
    profile_url, gateway_url, credentials, state = arguments
    async with duet_client.connect(
        profile_url,
        gateway_url,
        duet_client.FileCredentials(Path(credentials)),
        state=state,
        trust_env=False,
    ) as me:
        async for event in me.events():
            match event:
                case duet_client.ConnectionRestored():
                    sys.stdout.write("connected\n")
                case duet_client.NewMessage():
                    sys.stdout.write(f"{event.text}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
