"""The client's rules are pure, and it stands without the services."""

import sys
from pathlib import Path

import grimp
import pytest

_PURE = ["answers", "backoff", "errors", "events", "frames", "lanes", "lifecycle", "pace"]
_IMPURE = {"asyncio", "socket", "time", "os", "ssl", "sqlite3", "httpx", "websockets", "filelock"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("duet_client", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("module", [*_PURE, "cli.conversation"])
def test_rules_import_no_clock_network_or_files(graph: grimp.ImportGraph, module: str) -> None:
    reached = graph.find_upstream_modules(f"duet_client.{module}")
    assert not {name.partition(".")[0] for name in reached} & _IMPURE


def test_client_stands_without_the_services_and_the_command_lines_libraries(
    graph: grimp.ImportGraph,
) -> None:
    library = [m for m in graph.modules if m.startswith("duet_client") and ".cli" not in m]
    imported = {
        name.partition(".")[0]
        for module in library
        for name in graph.find_modules_directly_imported_by(module)
    } - {"duet_client", *sys.stdlib_module_names}
    assert imported == {"filelock", "httpx", "keyring", "msgspec", "websockets"}


def test_package_is_marked_as_typed() -> None:
    import duet_client

    assert (Path(str(duet_client.__file__)).parent / "py.typed").exists()
