"""The AsyncAPI 3.0 document of `duet.v1`: made from the structs that decode and encode it.

`python -m ws_gateway asyncapi` prints it; docs/asyncapi.json is a copy, held to this by a test.
"""

import inspect
import typing
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from ws_gateway.protocol import answers, frames, requests
from ws_gateway.protocol.errors import CLOSES, ERRORS

__all__ = ["ANSWERS", "NEWS", "REQUESTS", "describe"]

Struct: TypeAlias = type[msgspec.Struct]

REQUESTS: tuple[Struct, ...] = typing.get_args(requests.Request)
SERVER_FRAMES: tuple[Struct, ...] = typing.get_args(frames.ServerFrame)

ANSWERS: dict[Struct, tuple[Struct, ...]] = {
    requests.Connect: (frames.Connected, frames.Resumed, frames.Resync, frames.Error),
    requests.Refresh: (frames.Refreshed, frames.Error),
    requests.Send: (frames.Ack, frames.Error),
    requests.Edit: (frames.Ack, frames.Error),
    requests.Delete: (frames.Ack, frames.Error),
    requests.Received: (frames.ReceiptFrame, frames.Error),
    requests.Read: (frames.ReceiptFrame, frames.Error),
    requests.Typing: (),
    requests.History: (answers.HistoryPage, frames.Error),
    requests.Conversations: (answers.ConversationList, frames.Error),
    requests.Search: (answers.SearchResults, frames.Error),
    requests.Trace: (answers.TraceResult, frames.Error),
    requests.Block: (frames.Done, frames.Error),
    requests.Unblock: (frames.Done, frames.Error),
    requests.Blocks: (answers.BlockList, frames.Error),
    requests.Preferences: (answers.PreferenceValues, frames.Error),
    requests.Export: (answers.ExportChunk, answers.Exported, frames.Error),
}
"""What may answer each request."""

NEWS: tuple[Struct, ...] = (
    frames.MessageFrame,
    frames.Edited,
    frames.Deleted,
    frames.Erased,
    frames.ReceiptFrame,
    frames.TypingFrame,
    frames.PresenceFrame,
    frames.Changed,
    frames.Expiring,
    frames.Draining,
    frames.Error,
)
"""What the gateway sends unasked; `error` without an `id` concerns the connection."""

_CHANNEL = "#/channels/gateway"


def describe(path: str, subprotocol: str, version: str = "1") -> dict[str, Any]:
    """Write the document of a gateway that serves `subprotocol` at `path`."""
    messages = {struct.__name__: _message(struct) for struct in (*REQUESTS, *SERVER_FRAMES)}
    _, schemas = msgspec.json.schema_components(
        [*REQUESTS, *SERVER_FRAMES], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Duet gateway",
            "version": version,
            "description": "Two-person conversations over a WebSocket. docs/protocol.md has the "
            "rules that a schema cannot say. Ignore fields and frames that you do not know.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:8765", "protocol": "ws"}},
        "channels": {
            "gateway": {
                "address": path,
                "description": "One WebSocket; each message is one JSON text frame.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": _handshake(subprotocol)},
            }
        },
        "operations": dict(_operations()),
        "components": {"messages": messages, "schemas": schemas},
        "x-error-codes": {
            code.value: {"message": rule.message, "retryable": rule.retryable}
            for code, rule in ERRORS.items()
        },
        "x-close-codes": {
            str(code.value): {"meaning": rule.meaning, "reconnect": rule.reconnect}
            for code, rule in CLOSES.items()
        },
    }


def _handshake(subprotocol: str) -> dict[str, Any]:
    headers = {
        "Sec-WebSocket-Protocol": {"type": "string", "const": subprotocol},
        "Authorization": {
            "type": "string",
            "description": "`Bearer` and an access token, in place of the `connect` frame.",
        },
    }
    return {"method": "GET", "headers": {"type": "object", "properties": headers}}


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the gateway does: it receives requests, and sends news."""
    for struct in REQUESTS:
        operation = _operation("receive", struct)
        if answers := ANSWERS[struct]:
            operation["reply"] = {
                "channel": {"$ref": _CHANNEL},
                "messages": [_message_of_channel(answer) for answer in answers],
            }
        yield f"receive{struct.__name__}", operation
    for struct in NEWS:
        yield f"send{struct.__name__}", _operation("send", struct)


def _operation(action: str, struct: Struct) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": _CHANNEL},
        "summary": inspect.getdoc(struct),
        "messages": [_message_of_channel(struct)],
    }


def _message(struct: Struct) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": struct.__struct_config__.tag,
        "title": struct.__name__,
        "summary": inspect.getdoc(struct),
        "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
    }
    if "id" in struct.__struct_fields__:
        message["correlationId"] = {"location": "$message.payload#/id"}
    return message


def _message_of_channel(struct: Struct) -> dict[str, str]:
    return {"$ref": f"{_CHANNEL}/messages/{struct.__name__}"}
