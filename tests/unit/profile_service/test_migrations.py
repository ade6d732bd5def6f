"""Both engines have the same steps, so that one number says how far a schema is."""

import importlib.resources

from profile_service.adapters.postgres_access import MIGRATIONS as POSTGRESQL
from profile_service.adapters.sqlite_stores import MIGRATIONS as SQLITE


def steps(package: str) -> list[str]:
    files = importlib.resources.files(package).iterdir()
    return sorted(file.name for file in files if file.name.endswith(".sql"))


def test_the_engines_have_the_same_migrations() -> None:
    assert steps(SQLITE) == steps(POSTGRESQL) != []
