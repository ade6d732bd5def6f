"""Where a request comes from, and what it is counted by."""

import pytest

from shared.client_address import PRIVATE_NETWORKS, Networks, client_address, counted_as

TRUSTED = Networks(["127.0.0.1", "10.1.0.0/16", "fd00::/8"])


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:10.2.3.4", True),
        ("172.31.0.1", True),
        ("172.32.0.1", False),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("2001:4860::1", False),
        ("fe80::1%eth0", False),
        ("unix", False),
        (None, False),
    ],
)
def test_private_networks_are_those_the_internet_does_not_reach(
    address: str | None, is_inside: bool
) -> None:
    assert (address in Networks(PRIVATE_NETWORKS)) == is_inside


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["1.1.1.1"], "8.8.8.8"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("127.0.0.1", ["1.1.1.1, 8.8.8.8"], "8.8.8.8"),
        ("127.0.0.1", ["1.1.1.1", "8.8.8.8, 10.1.2.3"], "8.8.8.8"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("fd00::1", ["2001:4860::1"], "2001:4860::1"),
    ],
)
def test_only_what_trusted_proxies_say_is_believed(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == client


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("2001:4860:1:2:3:4:5:6", "2001:4860:1:2::/64"),
        ("2001:4860:1:2::1", "2001:4860:1:2::/64"),
        ("192.168.1.1", None),
        ("127.0.0.1", None),
        ("fe80::1%eth0", None),
        ("made up", None),
    ],
)
def test_connections_are_counted_by_what_one_subscriber_has(
    address: str, counted: str | None
) -> None:
    assert counted_as(address) == counted


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        Networks(["proxy.example"])
