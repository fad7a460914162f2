"""A directory's refusal of a password (result 19) in words that tell its user what to do about it."""

from __future__ import annotations

import re

_KINDS = (
    (r"in history|reuse not permitted", "this user had the password before, and IdM's history refuses it"),
    (r"too short|at least \d+ characters long", "too short for IdM's policy"),
    (r"too long", "too long for IdM"),
    (r"too soon|minimum age", "changed again too soon for IdM's policy"),
    (r"storage scheme", "it looks like a stored hash, which IdM refuses"),
    (
        r"too simple|must contain|repeated|based o|palindro|sequence|consecutive|contains username",
        "too simple for IdM's policy",
    ),
)
"""Words of 389-ds (ldap/servers/slapd/pw.c) and of IPA's plugin (util/ipa_pwd.c, daemons/ipa-slapi-plugins/
ipa-pwd-extop), and what they mean."""


def in_plain_words(words: str) -> str:
    """What kind of refusal it is, with the server's own words."""
    kind = next((meaning for pattern, meaning in _KINDS if re.search(pattern, words, re.IGNORECASE)), None)
    return f"{kind or 'refused by IdM'} (the server says: {words.strip() or 'nothing'})"
