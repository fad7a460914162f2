"""The probe's random password is never refused because of what happens to be in it."""

from __future__ import annotations

import re

from passrelay_consumer.servers import probe_password


def test_no_three_characters_of_it_can_be_part_of_an_entrys_name() -> None:
    # 389-ds refuses what shares three characters in a row with the uid, such as passrelay-probe-idm1.example:636.
    for _ in range(2000):
        assert re.search(r"[A-Za-z0-9.:-]{3}", probe_password().reveal()) is None


def test_it_is_new_each_time_and_has_every_class_of_characters() -> None:
    passwords = {probe_password().reveal() for _ in range(100)}
    assert len(passwords) == 100
    assert all(re.search(kind, password) for password in passwords for kind in ("[a-z]", "[A-Z]", "[0-9]", "[!#%+=~^]"))
