"""Where a request comes from: the peer's address, or what a proxy that is trusted says. Pure."""

import functools
import ipaddress
from collections.abc import Iterable, Sequence

__all__ = ["PRIVATE_NETWORKS", "Networks", "client_address", "counted_as"]

PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
)
"""This machine, and networks that the internet does not reach (RFC 1918, RFC 4193)."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """Some networks; an address is in one of them or not.

    Raises:
        ValueError: one is neither an address nor a network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def __contains__(self, address: object) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """Return the last address that no trusted proxy vouches for: what stands further left in
    `X-Forwarded-For` is whatever a client made up."""
    chain = [part.strip() for value in forwarded_for for part in value.split(",")]
    while chain and peer in trusted:
        peer = chain.pop()
    return peer


@functools.lru_cache(maxsize=4096)  # a storm comes from few addresses, and parsing takes 10 us
def counted_as(address: str) -> str | None:
    """Return what connections are counted by: the address, or the network that one subscriber has
    in IPv6. Nothing for addresses that are not of the internet: those are proxies, or one's own."""
    parsed = _parse(address)
    if parsed is None or not parsed.is_global:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _parse(address: object) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(str(address).partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
