"""The baseline: what is left of a chat server without storage, authentication and checks.

`websockets` and uvloop as their documentation has it, frames by msgspec, `await ws.send` for the
acknowledgement and for the delivery. It speaks enough of `duet.v1` for the same load generator.

    python -m bench.relay [PORT]      prints the port it listens on
"""

import sys

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class Connect(msgspec.Struct, tag_field="type", tag="connect"):
    """Takes the token for the user's name."""

    access_token: str


class Connected(msgspec.Struct, tag_field="type", tag="connected"):
    """Confirms `connect`."""

    user: str


class Send(msgspec.Struct, tag_field="type", tag="send"):
    """A message to pass on."""

    id: str
    to: str
    text: str


class Ack(msgspec.Struct, tag_field="type", tag="ack"):
    """Answers `send`."""

    id: str


class Message(msgspec.Struct, tag_field="type", tag="message"):
    """A message that was passed on."""

    from_: str = msgspec.field(name="from")
    text: str


_decoder = msgspec.json.Decoder(Connect | Send)
_encode = msgspec.json.Encoder().encode
_connections: dict[str, ServerConnection] = {}


async def handle(websocket: ServerConnection) -> None:
    """Serve one connection until it closes."""
    user = ""
    try:
        async for raw in websocket:
            frame = _decoder.decode(raw)
            if isinstance(frame, Send):
                await websocket.send(_encode(Ack(frame.id)), text=True)
                peer = _connections.get(frame.to)
                if peer is not None:
                    await peer.send(_encode(Message(user, frame.text)), text=True)
            else:
                user = frame.access_token
                _connections[user] = websocket
                await websocket.send(_encode(Connected(user)), text=True)
    except ConnectionClosed:
        pass
    finally:
        if _connections.get(user) is websocket:
            del _connections[user]


async def main(port: int) -> None:
    """Serve until the process is ended."""
    async with serve(handle, "127.0.0.1", port, compression=None, backlog=1024) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
