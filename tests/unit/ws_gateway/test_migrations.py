"""Both engines have the same steps, so that one number says how far a schema is."""

import importlib.resources

from ws_gateway.adapters import migrations


def steps(engine: str) -> list[str]:
    files = (importlib.resources.files(migrations) / engine).iterdir()
    return sorted(file.name for file in files if file.name.endswith(".sql"))


def test_the_engines_have_the_same_migrations() -> None:
    assert steps("sqlite") == steps("postgresql") != []


def test_no_step_shows_rows_at_the_start_of_a_gateway() -> None:
    """What a SELECT finds would be printed."""
    for engine in ("sqlite", "sqlite_search", "postgresql"):
        for file in (importlib.resources.files(migrations) / engine).iterdir():
            if file.name.endswith(".sql"):
                lines = [line for line in file.read_text().splitlines() if line[:2] != "--"]
                statements = "\n".join(lines).split(";\n")
                assert not any(s.lstrip("\n").startswith("SELECT") for s in statements), file.name
