"""Every size and count limit of the wire format, named once."""

from __future__ import annotations

EVENT_BYTES = (2048, 4096)
"""An event is padded to the first size that holds it, so its length tells nothing; beyond the last it is refused."""
HOOK_RECORD_TEXT = 1068
"""The Windows hook's record of 801 bytes as base64url."""
MAX_PASSWORD_UTF16 = 256
"""AD's own limit on unicodePwd, in UTF-16 code units ([MS-SAMR] 3.1.1.7.1)."""
MAX_PASSWORD_UTF8 = 1000
"""IPA's limit (util/ipa_krb5.h): longer values get result 19 whoever binds."""
MAX_NAME = 256
"""sAMAccountName's rangeUpper."""
MAX_UPN = 1024
"""userPrincipalName's rangeUpper."""
MAX_DOMAIN = 255
"""A DNS name (RFC 1035 2.3.4)."""
MAX_PRODUCER = 64
"""A producer's name, which is also its certificate's common name (RFC 5280 ub-common-name)."""
MAX_KEY_ID = 64
MAX_SUITE = 64
MAX_SEALED_PARTS = 4
MAX_SEALED_PART_BYTES = 8192
"""4,096 bytes of event, 1,136 of encapsulation and tag, and room for a later suite."""
MAX_PROTECTED_BYTES = 1024
MAX_SIGNED_BYTES = 512
MAX_SIGNATURE_BYTES = 4096
"""Ed25519 takes 64; ML-DSA-65 would take 3,309."""
MAX_ENVELOPE_BYTES = 49152
MAX_SID = 184
MAX_KVNO = 2**32 - 1
MAX_FILETIME = 2_650_467_743_999_999_999
"""The end of year 9999 in FILETIME units."""
MAX_AHEAD_SECONDS = 86_400
"""In a time-ordered domain a change that claims to come from further in the future would shut out all later ones."""
NOTE_BYTES = 1024
"""A sealed note is padded to this, so its length tells nothing about the account."""
MAX_RECORD_BYTES = 98304
MAX_NEWS_BYTES = 65536
"""All of the following at their most take 36 kB, and a third more as base64url."""
MAX_NEWS_DOMAINS = 64
MAX_NEWS_FINGERPRINTS = 16
MAX_NEWS_VERSION = 64
MAX_NEWS_REASONS = 32
MAX_NEWS_KEYS = 64
MAX_KEY_FILE_BYTES = 65536
MAX_LINE_BYTES = 16384
"""One line of the stdin source."""
