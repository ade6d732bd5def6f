"""What every integration test of the gateway checks at its end."""

from collections.abc import Iterator

import pytest

from tests.support.gateways import gateways, nats

__all__ = ["gateways", "nats"]


@pytest.fixture(autouse=True)
def _no_fault_of_a_client_shows_as_ours(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, the log holds no traceback and no error."""
    yield
    ours = [record for record in caplog.get_records("call") if "client" not in record.name]
    faults = [
        record.getMessage() for record in ours if record.exc_info or record.levelname == "ERROR"
    ]
    assert faults == []
