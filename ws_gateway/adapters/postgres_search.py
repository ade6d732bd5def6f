"""The search index on PostgreSQL: a document for each message, made from its words here.

It follows the messages, a conversation at a time: whoever indexes one holds the lock of its row in
`indexed`, and so does whoever revises a message in it. A document holds the keys of both people, as
words that no text has.
"""

from collections.abc import Sequence

from shared.postgres import Connection
from ws_gateway.adapters.search_words import words_of

__all__ = ["document", "index_some", "person_word", "text_query"]

_MAX_PLACE = 16_383  # of a word in a tsvector
_MAX_WAIT_S = 1


def document(text: str, low: int, high: int) -> str:
    """Return the tsvector of a message, as PostgreSQL reads one."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words_of(text), 1):
        places.setdefault(word, []).append(min(place, _MAX_PLACE))
    words = [f"'{word}':{','.join(map(str, at))}" for word, at in places.items()]
    return " ".join([*words, f"'{person_word(low)}'", f"'{person_word(high)}'"])


def person_word(key: int) -> str:
    """Return the word by which a person's messages are found."""
    return f"@{key}"


def text_query(phrases: Sequence[Sequence[str]], last_is_prefix: bool) -> str:
    """Return the tsquery for texts that hold every phrase, as PostgreSQL reads one."""
    terms = [" <-> ".join(f"'{word}'" for word in phrase) for phrase in phrases]
    if last_is_prefix:
        terms[-1] += ":*"
    return " & ".join(f"({term})" for term in terms)


async def index_some(
    connection: Connection, conversations: Sequence[int], limit: int, *, wait: bool
) -> tuple[set[int], int]:
    """Index at most `limit` more messages of some conversations, in a transaction.

    Returns the conversations that are done, and how many messages it passed. Unless it shall
    `wait`, for a second, a conversation that somebody else is indexing or revising at this moment
    is left alone.
    """
    if wait:
        await connection.execute(f"SET LOCAL lock_timeout = '{_MAX_WAIT_S}s'")
    locked = await connection.fetch(_LOCK + ("" if wait else " SKIP LOCKED"), conversations)
    keys = [row["conversation"] for row in locked]
    rows = await connection.fetch(_NEXT, keys, [row["seq"] for row in locked], limit)
    found = [row for row in rows if not row["deleted"]]
    await connection.execute(
        _INDEX,
        [row["conversation"] for row in found],
        [row["seq"] for row in found],
        [document(row["text"], row["low"], row["high"]) for row in found],
    )
    ends = {row["conversation"]: row["seq"] for row in rows}
    await connection.execute(_NOTE, list(ends), list(ends.values()))
    is_cut = len(rows) == limit
    done = {key for key in keys if not is_cut or key < rows[-1]["conversation"]}
    return done, len(rows)


_LOCK = """
SELECT conversation, seq FROM indexed
WHERE conversation = ANY ($1) ORDER BY conversation FOR UPDATE
"""

_NEXT = """
SELECT message.conversation, message.seq, message.text, message.deleted, chat.low, chat.high
FROM unnest($1::integer[], $2::integer[]) AS pending (conversation, seq)
JOIN conversations AS chat ON chat.key = pending.conversation
CROSS JOIN LATERAL (
    SELECT conversation, seq, text, deleted FROM messages
    WHERE messages.conversation = pending.conversation AND messages.seq > pending.seq
    ORDER BY messages.seq LIMIT $3
) AS message
ORDER BY message.conversation, message.seq LIMIT $3
"""

_INDEX = """
INSERT INTO search (conversation, seq, words)
SELECT conversation, seq, words::tsvector
FROM unnest($1::integer[], $2::integer[], $3::text[]) AS message (conversation, seq, words)
"""

_NOTE = """
UPDATE indexed SET seq = done.seq
FROM unnest($1::integer[], $2::integer[]) AS done (conversation, seq)
WHERE indexed.conversation = done.conversation
"""
