"""Entity tags of profiles, and the conditions that requests put on them (RFC 9110, section 13)."""

import re

from profile_service.users import User

__all__ = ["entity_tag", "expected_revisions", "is_unmodified"]

_TAGS = re.compile(r'\s*(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


def entity_tag(user: User) -> str:
    """Name this revision of the profile: a strong tag."""
    return f'"r{user.revision}"'


def expected_revisions(if_match: str | None) -> frozenset[int] | None:
    """Read `If-Match`: the revisions that may be changed, or None for any.

    Weak tags never match (strong comparison), and neither does what is no tag of ours.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(
        int(tag["opaque"][1:])
        for tag in _TAGS.finditer(if_match)
        if not tag["weak"] and re.fullmatch(r"r[0-9]{1,18}", tag["opaque"])
    )


def is_unmodified(if_none_match: str | None, user: User) -> bool:
    """Read `If-None-Match`: whether the client already has this revision (weak comparison)."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(f'"{tag["opaque"]}"' == entity_tag(user) for tag in _TAGS.finditer(if_none_match))
