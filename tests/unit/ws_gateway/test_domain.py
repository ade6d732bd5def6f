"""Rules without I/O: retries, request ids, and which revocations end which sessions."""

import pytest

from shared.ids import ConversationId, SessionId, UserId
from shared.revocation import Revocation
from ws_gateway.conversations import Draft, Message, is_valid_client_id
from ws_gateway.identity import Identity

ANN, BOB, CID = UserId("u_ann"), UserId("u_bob"), UserId("u_cid")


def message(**changes: object) -> Message:
    fields: dict[str, object] = {
        "conversation": ConversationId("c_1"),
        "seq": 1,
        "position": 1,
        "sender": ANN,
        "recipient": BOB,
        "client_id": "1",
        "text": "hi",
        "sent_at_ms": 1,
    }
    return Message(**{**fields, **changes})  # type: ignore[arg-type]


def test_same_recipient_and_text_is_a_retry() -> None:
    assert Draft(ANN, BOB, "1", "hi").repeats(message())


@pytest.mark.parametrize("draft", [Draft(ANN, BOB, "1", "other"), Draft(ANN, CID, "1", "hi")])
def test_other_content_is_no_retry(draft: Draft) -> None:
    assert not draft.repeats(message())


def test_retry_of_an_edited_message_is_believed_for_the_same_recipient_only() -> None:
    edited = message(text="mended", revision=1)
    assert Draft(ANN, BOB, "1", "hi").repeats(edited)
    assert not Draft(ANN, CID, "1", "hi").repeats(edited)


@pytest.mark.parametrize("client_id", ["1", " ", "~", "x" * 64, '"\\'])
def test_printable_ascii_names_a_request(client_id: str) -> None:
    assert is_valid_client_id(client_id)


@pytest.mark.parametrize("client_id", ["", "x" * 65, "\u00e9", "\n", "\x7f", "\x00", "\u200b"])
def test_other_characters_do_not(client_id: str) -> None:
    assert not is_valid_client_id(client_id)


def identity(token_version: int = 3) -> Identity:
    return Identity(
        user_id=ANN,
        username="ann",
        session_id=SessionId("s_1"),
        token_version=token_version,
        expires_at=0.0,
    )


@pytest.mark.parametrize(
    ("revocation", "ends"),
    [
        (Revocation("session", ANN, session_id=SessionId("s_1")), True),
        (Revocation("session", ANN, session_id=SessionId("s_2")), False),
        (Revocation("session", BOB, session_id=SessionId("s_1")), False),
        (Revocation("session", ANN), False),
        (Revocation("all_sessions", ANN), True),
        (Revocation("all_sessions", ANN, token_version=4), True),
        (Revocation("all_sessions", ANN, token_version=3), False),
        (Revocation("all_sessions", BOB, token_version=4), False),
        (
            Revocation("all_sessions", ANN, token_version=4, kept_session_id=SessionId("s_1")),
            False,
        ),
        (
            Revocation("all_sessions", ANN, token_version=4, kept_session_id=SessionId("s_2")),
            True,
        ),
        (Revocation("user_deleted", ANN), True),
        (Revocation("user_deleted", BOB), False),
    ],
)
def test_revocation_ends_the_sessions_it_names(revocation: Revocation, ends: bool) -> None:
    assert identity().is_ended_by(revocation) is ends
