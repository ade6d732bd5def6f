"""Both services, started once for all tests of the client, or anew for those that kill them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from duet_client import Tokens
from tests.client_python.services import Duet, running_gateway_process, running_profile_process


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of the services that all tests share."""
    return tmp_path_factory.mktemp("duet")


@pytest.fixture(scope="session")
def profile_url(shared_data: Path) -> Iterator[str]:
    """The profile service that all tests share."""
    with running_profile_process(shared_data) as url:
        yield url


@pytest.fixture(scope="session")
def duet(shared_data: Path, profile_url: str) -> Iterator[Duet]:
    """Both services, shared by all tests."""
    with running_gateway_process(shared_data, profile_url) as gateway:
        yield Duet(profile_url, gateway)


@pytest.fixture
def own_gateway(tmp_path: Path, shared_data: Path, profile_url: str) -> Iterator[Duet]:
    """The shared profile service and a gateway of the test's own, which it may kill."""
    secret = str(shared_data / "service_secret")
    with running_gateway_process(
        tmp_path / "gateway", profile_url, DUET_SERVICE_SECRET_FILE=secret
    ) as gateway:
        yield Duet(profile_url, gateway)


@pytest.fixture
async def ann(duet: Duet) -> Tokens:
    """Somebody who has just signed up."""
    return await duet.sign_up("ann")


@pytest.fixture
async def bob(duet: Duet) -> Tokens:
    """Somebody else."""
    return await duet.sign_up("bob")
