"""What the two services agree on: identifiers, introspection, revocations, common settings."""

import string
from pathlib import Path

import msgspec
import pytest

from shared import ids
from shared.introspection import Introspection, IssuedTokens, TokenPair
from shared.revocation import Revocation
from shared.settings import ServiceSettings


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (ids.new_user_id, "u_"),
        (ids.new_session_id, "s_"),
        (ids.new_connection_id, "n_"),
    ],
)
def test_identifiers_name_their_kind_and_do_not_repeat(make: object, prefix: str) -> None:
    assert callable(make)
    made = {make() for _ in range(1000)}
    assert len(made) == 1000
    allowed = set(string.ascii_lowercase + "234567")
    for identifier in made:
        assert identifier.startswith(prefix)
        assert set(identifier[2:]) <= allowed
        assert len(identifier) <= ids.MAX_ID_CHARACTERS


def test_conversation_is_the_same_for_both_and_only_for_them() -> None:
    ann, bob, cid = (ids.new_user_id() for _ in range(3))
    assert ids.conversation_id(ann, bob) == ids.conversation_id(bob, ann)
    assert ids.conversation_id(ann, bob).startswith("c_")
    assert len({ids.conversation_id(*pair) for pair in ((ann, bob), (ann, cid), (bob, cid))}) == 3


def test_bad_token_is_exactly_inactive() -> None:
    assert msgspec.json.encode(Introspection(active=False)) == b'{"active":false}'


def test_credentials_do_not_show() -> None:
    shown = repr([TokenPair("s3cret", "s3cret"), IssuedTokens("s3cret", "s3cret", 600)])
    assert "s3cret" not in shown


def test_absent_fields_of_a_revocation_are_not_written() -> None:
    revocation = Revocation("user_deleted", ids.UserId("u_1"))
    encoded = msgspec.json.encode(revocation)
    assert encoded == b'{"kind":"user_deleted","user_id":"u_1"}'
    assert msgspec.json.decode(encoded, type=Revocation) == revocation


def test_secret_comes_from_the_variable_the_file_or_is_made(tmp_path: Path) -> None:
    given = ServiceSettings(data_dir=tmp_path, service_secret="x" * 32)  # type: ignore[arg-type]
    assert given.shared_secret() == b"x" * 32
    assert "xxx" not in repr(given)
    (tmp_path / "elsewhere").write_text("y" * 40)
    pointed = ServiceSettings(data_dir=tmp_path, service_secret_file=tmp_path / "elsewhere")
    assert pointed.shared_secret() == b"y" * 40
    made = ServiceSettings(data_dir=tmp_path / "new").shared_secret()
    assert (tmp_path / "new" / "service_secret").read_bytes().strip() == made
