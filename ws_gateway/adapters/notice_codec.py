"""Notices as bytes between gateways: msgpack, and room for those of newer gateways."""

from collections.abc import Iterator, Sequence

import msgspec
import structlog

from ws_gateway.conversations import Notice, PresenceNotice

__all__ = ["decode", "encode", "payloads"]

_MAX_PAYLOAD_BYTES = 256 * 1024
"""NATS takes a megabyte by default; one notice is much smaller."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Notice])
_one_decoder = msgspec.msgpack.Decoder(Notice)
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])

_log = structlog.get_logger(__name__)


def encode(notice: Notice) -> bytes:
    """Encode one notice. Whom it is for says the subject, not a presence notice of a thousand."""
    if isinstance(notice, PresenceNotice):
        notice = msgspec.structs.replace(notice, to=())
    return _encoder.encode(notice)


def payloads(encoded: Sequence[bytes]) -> Iterator[bytes]:
    """Put encoded notices together, in their order, to payloads that the bus takes."""
    start = size = 0
    for index, notice in enumerate(encoded):
        if size and size + len(notice) > _MAX_PAYLOAD_BYTES:
            yield _together(encoded[start:index])
            start, size = index, 0
        size += len(notice)
    yield _together(encoded[start:])


def decode(payload: bytes) -> Sequence[Notice]:
    """Read a payload, and pass over what only newer gateways know."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        return list(_known(payload))


def _known(payload: bytes) -> Iterator[Notice]:
    try:
        notices = _raw_decoder.decode(payload)
    except msgspec.DecodeError as error:
        _log.warning("something on the bus is no list of notices", reason=str(error))
        return
    for notice in notices:
        try:
            yield _one_decoder.decode(notice)
        except msgspec.DecodeError as error:
            _log.debug("passed over a notice of a newer gateway", reason=str(error))


def _together(encoded: Sequence[bytes]) -> bytes:
    return _encoder.encode([msgspec.Raw(notice) for notice in encoded])
