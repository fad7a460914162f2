"""What a directory's refusal of a password means, in words for its user."""

from __future__ import annotations

import pytest

from passrelay_consumer.policy import in_plain_words

HISTORY, SHORT, LONG = "had the password before", "too short for IdM", "too long for IdM"
SOON, SIMPLE, HASH, OTHER = "too soon", "too simple", "stored hash", "refused by IdM"


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        # 389-ds
        ("password in history", HISTORY),
        ("invalid password syntax - password must be at least 8 characters long", SHORT),
        ("invalid password syntax - password must contain at least 2 digit characters", SIMPLE),
        ("invalid password syntax - a character cannot be repeated more than 3 times", SIMPLE),
        ("invalid password syntax - password based off of user entry", SIMPLE),
        ("invalid password syntax - passwords with storage scheme are not allowed", HASH),
        ("within password minimum age", SOON),
        # IPA
        ("Password reuse not permitted", HISTORY),
        ("Password is too short", SHORT),
        ("Password is too long!", LONG),
        ("clear-text password is too long (max 1000 chars)!", LONG),
        ("Password is too simple", SIMPLE),
        ("Password is based on a dictionary word", SIMPLE),
        ("Password is a palindrone", SIMPLE),
        ("Password contains a monotonic sequence", SIMPLE),
        ("Password has too many consecutive characters", SIMPLE),
        ("Password contains username", SIMPLE),
        ("Too soon to change password", SOON),
        ("Account expired", OTHER),
    ],
)
def test_each_refusal_is_told_apart_and_keeps_the_servers_words(words: str, meaning: str) -> None:
    told = in_plain_words(f"{words}\n")
    assert meaning in told
    assert told.endswith(f"(the server says: {words})")
    others = {HISTORY, SHORT, LONG, SOON, SIMPLE, HASH, OTHER} - {meaning}
    assert not any(other in told.partition(" (the server")[0] for other in others - {OTHER})


def test_a_server_that_says_nothing_is_no_silence() -> None:
    assert in_plain_words("") == "refused by IdM (the server says: nothing)"
