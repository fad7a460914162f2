"""Valid input of every kind that comes from outside: what the mutations begin with. Passwords carry the canary."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from unittest import mock
from uuid import UUID

import pika
import pysequoia
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from passrelay_consumer import ldap_messages
from passrelay_consumer.ldap_messages import sized
from passrelay_producer.metadata import PWD_LAST_SET, UNICODE_PWD
from passrelay_producer.nt_hash import md4
from passrelay_producer.supplemental import SAMBA_GPG
from passrelay_schemas import event as events
from passrelay_schemas import key_encryption, keys
from passrelay_schemas import news as documents
from passrelay_schemas.event import Kind
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.keys import KeyDocument, KeyUse
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import NOTE, REASON, envelope_properties, news_properties, record_properties
from passrelay_schemas.news import News, SpooledFor
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import Record, envelope_text, note_text
from passrelay_schemas.sealing import Opener, seal
from passrelay_schemas.secret import Secret
from passrelay_schemas.signing import Signer
from passrelay_schemas.strict_json import b64url
from passrelay_schemas.suites import MLKEM768_X25519, P256, SUITES
from passrelay_schemas.verdict import Reason, Verdict
from tests.hostile.attributes import entry_line, parse_entry
from tests.hostile.wire import NOT_A_NUMBER, TOO_LATE, RawHeaders, encoded
from tests.unit.builders import (
    CHANGED_AT,
    DOMAIN,
    DOMAIN_SID,
    EVENT_ID,
    GUID,
    PASSWORD,
    PRODUCER,
    SIGNED_AT,
    Party,
    event,
)


def _key(
    use: KeyUse, algorithm: str, private: bytes, public: bytes, producer: str | None = None
) -> tuple[KeyDocument, bytes]:
    key_id = keys.key_id_of(algorithm, public)
    document = KeyDocument(
        key_id=key_id, use=use, algorithm=algorithm, public=b64url(public), producer=producer, created_at=SIGNED_AT
    )
    return document, private


def _hpke_key(use: KeyUse, algorithm: str, seed: bytes) -> tuple[KeyDocument, bytes]:
    return _key(use, algorithm, seed, SUITES[algorithm].public_of(seed))


class _SameParty(Party):
    """With the same keys in each process, so that an input that was found in one means the same in another."""

    def __init__(self) -> None:
        self.recipient, private = _hpke_key(KeyUse.RECIPIENT, MLKEM768_X25519, b"\1" * 96)
        self.opener = Opener(self.recipient, private)
        self.signing_private = b"\2" * 32
        public = Ed25519PrivateKey.from_private_bytes(self.signing_private).public_key().public_bytes_raw()
        self.signing, _ = _key(KeyUse.SIGNING, keys.ED25519, self.signing_private, public, PRODUCER)
        self.signer = Signer(self.signing, self.signing_private)


PARTY = _SameParty()
OPS, OPS_PRIVATE = _hpke_key(KeyUse.OPS, MLKEM768_X25519, b"\3" * 96)
HOOK, HOOK_PRIVATE = _hpke_key(KeyUse.HOOK, P256, b"\4" * 32)
PASSPHRASE = Secret("Kanarie7-passphrase-of-a-key")
NOTE_TEXT = note_text(account="alice", guid=GUID, diagnostic="LDAP result 53: unwilling")
ENVELOPE = PARTY.envelope()

EVENTS = (
    events.encode(event()),
    events.encode(event(None, kind=Kind.EXPIRE, must_change=True)),
    events.encode(event(user_principal_name="alice@lab.example", origin=UUID(int=7), must_change=True)),
)
LINES = tuple(
    raw
    for line in (
        {
            "domain": DOMAIN,
            "account": {"guid": str(GUID), "sid": f"{DOMAIN_SID}-1105", "sam_account_name": "alice"},
            "password": PASSWORD,
            "kvno": 7,
            "changed_at": CHANGED_AT,
            "kind": "change",
        },
        {
            "domain": "flat.example",
            "account": {"sam_account_name": "bob"},
            "password": PASSWORD,
            "changed_at": "2026-11-24T22:42:33.123456Z",
            "must_change": False,
        },
    )
    for raw in (json.dumps(line).encode(),)
)

HOOK_PLAIN = struct.pack("<IIQ512s", 1105, len(PASSWORD) * 2, CHANGED_AT, PASSWORD.encode("utf-16-le"))
HOOK_HEADER = struct.pack(
    "<16s48s64s32s", b"passrelay.hook/1", DOMAIN_SID.encode(), PRODUCER.encode(), HOOK.key_id.encode()
)
HOOK_PART = HOOK_HEADER + seal(HOOK_PLAIN, info=HOOK_HEADER, recipient=HOOK)
HOOK_TEXT = b64url(HOOK_PART + hashlib.sha256(HOOK_PART).digest())

RECORDS = (
    Record(
        event_id=EVENT_ID,
        producer=PRODUCER,
        domain=DOMAIN,
        verdict=Verdict.DEAD,
        reason=Reason.POLICY,
        server="ldaps://idm1:636",
        attempts=3,
        captured_at=SIGNED_AT,
        received_at=SIGNED_AT,
        note=NoteSealer().seal(NOTE_TEXT, event_id=EVENT_ID, ops_key=OPS),
        envelope=envelope_text(ENVELOPE),
    ),
    Record(
        event_id=EVENT_ID,
        producer=PRODUCER,
        verdict=Verdict.DISCARDED,
        reason=Reason.POLICY,
        replays=1,
        received_at=SIGNED_AT,
        by="op@host",
        why="ticket 7",
    ),
    Record(event_id=EVENT_ID, verdict=Verdict.APPLIED, received_at=SIGNED_AT, applied_at=SIGNED_AT),
)


def framed(properties: bytes, body: bytes) -> bytes:
    """One message of a stream as the corpus keeps it: the length of its properties, these, and the body."""
    return struct.pack(">H", len(properties)) + properties + body


LETTERS = (
    *(framed(encoded(record_properties(record)), record.encode()) for record in RECORDS),
    framed(encoded(envelope_properties(PARTY.seal().header, attempt=4, replays=1, note=RECORDS[0].note)), ENVELOPE),
)
HEADERS = (
    encoded(envelope_properties(PARTY.seal().header, attempt=3, replays=2, reason="policy", note=RECORDS[0].note)),
    encoded(envelope_properties(PARTY.seal().header, settle=2, settle_since=SIGNED_AT)),
    encoded(
        pika.BasicProperties(
            headers={"x-delivery-count": 7, "x-death": [{"time": SIGNED_AT, "count": 3, "queue": "passrelay.events"}]},
            type="x",
            priority=7,
            timestamp=2**63,
            expiration="60000",
        )
    ),
    encoded(RawHeaders({b"a": TOO_LATE, b"n": NOT_A_NUMBER, REASON.encode(): b"S\0\0\0\1x"}, app_id="x")),
    encoded(pika.BasicProperties(headers={NOTE: b"\xff" * 40, "deep": {"a": {"b": [1, [2, {"c": None}]]}}})),
)
_NEWS = News(
    signing_key_id=PARTY.signing.key_id,
    producer=PRODUCER,
    source="samba",
    domains=(DOMAIN,),
    controller="dc1.lab.example",
    openpgp_fingerprints=("AB" * 20,),
    version="1.0",
    seals_to=PARTY.recipient.key_id,
    sent_at=SIGNED_AT,
    started_at=SIGNED_AT - timedelta(hours=1),
    last_capture_at=SIGNED_AT,
    pending={"no_clear_text": 2},
    spool=(SpooledFor(recipient_key_id=PARTY.recipient.key_id, queued=3, oldest_at=SIGNED_AT, retained=9),),
)
NEWS_DOCUMENT = _NEWS.model_dump_json(by_alias=True, exclude_none=True).encode()
NEWS = documents.encode(_NEWS, PARTY.signer)
NEWS_PROPERTIES = encoded(news_properties(PRODUCER))

PUBLIC_KEYS = tuple(document.encode() for document in (PARTY.recipient, PARTY.signing, OPS, HOOK))


def _private(document: KeyDocument, **content: object) -> bytes:
    return json.dumps(
        {
            "schema": "passrelay.private-key/1",
            "key_id": document.key_id,
            "use": document.use.value,
            "algorithm": document.algorithm,
            **content,
        }
    ).encode()


def derived(passphrase: Secret, salt: bytes) -> bytes:
    """Instead of scrypt: a guess at a passphrase takes a fifth of a second, by design, whatever the file holds."""
    return bytes(32)


def _encrypted() -> dict[str, str]:
    bound_to = f"passrelay.private-key/1 hook {HOOK.algorithm} {HOOK.key_id}".encode()
    with mock.patch.object(key_encryption, "_derive", derived):
        return key_encryption.encrypt(HOOK_PRIVATE, PASSPHRASE, bound_to=bound_to).model_dump()


PRIVATE_KEYS = (
    _private(PARTY.signing, private=b64url(PARTY.signing_private)),
    _private(OPS, private=b64url(OPS_PRIVATE)),
    _private(
        HOOK,
        encrypted=_encrypted(),
    ),
)

_APPLIED_AT = "2026-11-24T22:42:33.120Z"
MARKERS = (
    str(Marker(0, 7, CHANGED_AT, GUID, EVENT_ID, _APPLIED_AT)).encode(),
    str(Marker(3, 0, CHANGED_AT, GUID, EVENT_ID, _APPLIED_AT, frozenset("xf"))).encode(),
)
IDM_ENTRIES = (
    b"\n".join(
        (
            b"dn=uid=alice,cn=users,cn=accounts,dc=idm,dc=test",
            entry_line("passrelayMarker", MARKERS[0]),
            entry_line("passrelayProof", MARKERS[0]),
            b"objectClass=person",
            b"objectClass=krbPrincipalAux",
            b"objectClass=passrelayAccount",
            b"memberOf=cn=ipausers,cn=groups,cn=accounts,dc=idm,dc=test",
            b"krbPrincipalName=alice@IDM.TEST",
            b"createTimestamp=20260101000000Z",
            b"krbLastPwdChange=20261124224233Z",
            b"krbPasswordExpiration=20270224224233Z",
            b"modifyTimestamp=20261124224233Z",
        )
    ),
    b"\n".join(
        (
            b"dn=uid=bob,cn=users,cn=accounts,dc=idm,dc=test",
            b"objectClass=person",
            b"createTimestamp=99991231235959Z",
            b"krbLastPwdChange=00010101000000Z",
            b"krbPasswordExpiration=99991231235959Z",
            b"modifyTimestamp=99991231235959Z",
        )
    ),
)
MATCHES = (b"alice", b"o'brien (x)*\\", "J\u00fcrgen \u674e".encode(), b"a=b>=c~=d", b"{upn}{sam}")

SECRET_KEY = pysequoia.Tsk.generate(user_id="capture")
_HERE = UUID(int=1)
_SECOND = 13_440_035_200
METADATA = struct.pack("<IIII", 1, 0, 2, 0) + b"".join(
    struct.pack("<IIQ16sQQ", attribute, version, _SECOND, _HERE.bytes_le, 9, 16)
    for attribute, version in ((UNICODE_PWD, 7), (PWD_LAST_SET, 3))
)


def _supplemental(message: bytes) -> bytes:
    parts = b""
    for name, data in (("Primary:Kerberos", b"\0" * 40), (SAMBA_GPG, message)):
        raw_name, raw = name.encode("utf-16-le"), data.hex().upper().encode()
        parts += struct.pack("<HHH", len(raw_name), len(raw), 1) + raw_name + raw
    body = b" \0" * 48 + struct.pack("<HH", 0x50, 2) + parts
    return struct.pack("<III", 0, len(body), 0) + body + b"\0"


OPENPGP = pysequoia.encrypt(PASSWORD.encode("utf-16-le"), recipients=[SECRET_KEY.extract_certificate()])
SUPPLEMENTAL = _supplemental(OPENPGP)
_SID = b"\1\5" + bytes((0, 0, 0, 0, 0, 5)) + struct.pack("<5I", 21, 1, 2, 3, 1105)
ACCOUNT = b"\n".join(
    (
        b"dn=<GUID=0b6f0f5e-6a4b-4a4e-9a52-0d4f5a1b2ce1>;<SID=S-1-5-21-1-2-3-1105>;CN=alice,CN=Users,DC=lab,DC=example",
        entry_line("objectGUID", GUID.bytes_le),
        entry_line("objectSid", _SID),
        b"objectClass=top",
        b"objectClass=user",
        b"sAMAccountName=alice",
        b"userPrincipalName=alice@lab.example",
        b"adminCount=0",
        b"userAccountControl=512",
        b"primaryGroupID=513",
        b"memberOf=<GUID=0b6f0f5e-6a4b-4a4e-9a52-0d4f5a1b2ce1>;<SID=S-1-5-21-1-2-3-1200>;CN=g,DC=lab,DC=example",
        entry_line("pwdLastSet", str(_SECOND * UNITS_PER_SECOND + 1_234_567).encode()),
        entry_line("replPropertyMetaData", METADATA),
        entry_line("unicodePwd", md4(PASSWORD.encode("utf-16-le"))),
        entry_line("supplementalCredentials", SUPPLEMENTAL),
        b"msDS-KeyVersionNumber=7",
    )
)
CONTROLLER = b"\n".join(
    (
        b"dn=CN=NTDS Settings,CN=DC1,CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,DC=lab,DC=example",
        b"defaultNamingContext=DC=lab,DC=example",
        b"configurationNamingContext=CN=Configuration,DC=lab,DC=example",
        b"dnsHostName=dc1.lab.example",
        b"currentTime=20261124230000.0Z",
        entry_line("objectSid", b"\1\4" + _SID[2:-4]),
        b"pwdProperties=1",
        b"objectClass=nTDSDSA",
        b"objectCategory=CN=NTDS-DSA,CN=Schema,CN=Configuration,DC=lab,DC=example",
        b"msDS-HasDomainNCs=DC=lab,DC=example",
        entry_line("tokenGroups", _SID),
    )
)
AGREEMENT = b"\n".join(
    (
        b"dn=cn=meToidm2,cn=replica,cn=mapping tree,cn=config",
        b"nsDS5ReplicaHost=idm2.example",
        b"nsDS5ReplicaPort=636",
        b"nsds5ReplicaEnabled=on",
        b"nsds5replicaLastUpdateStatus=Error (0) Replica acquired successfully: Incremental update succeeded",
        entry_line("nsds5replicaLastUpdateStatusJSON", b'{"state": "green", "ldap_rc": "0", "message": "good"}'),
        b"nsds5replicaLastUpdateEnd=20261124230000Z",
    )
)
DEFINITIONS = (
    b"( 1.9.1 NAME 'passrelayMarker' EQUALITY caseExactIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )",
    b"( 1.9.2 NAME ( 'passrelayMarker' 'b' ) SUP top AUXILIARY MUST cn MAY ( sn $ uid ) )",
)


def _certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dc1.lab.example")])
    names = x509.SubjectAlternativeName([x509.DNSName("dc1.lab.example"), x509.IPAddress(ip_address("10.0.0.1"))])
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, first, last).add_extension(names, critical=False)
    return made.sign(key, None).public_bytes(Encoding.DER)


CERTIFICATE = _certificate()
HOOK_REGISTRY = json.dumps(
    {
        "RecipientKey": [{"hex": "04" + "11" * 64}, 3],
        "RecipientKeyId": ["abcdefgh", 1],
        "Producer": ["dc1", 1],
        "DomainSid": ["S-1-5-21-1-2-3", 1],
        "Folder": ["C:\\ProgramData\\passrelay\\hook", 1],
        "State": ["loaded", 1],
        "Version": ["1.0.0", 1],
        "ProcessId": [700, 4],
        "LsaPid": [700, 4],
        "Lost": [1, 4],
        "LastLostRid": [1105, 4],
        "SlotsLeft": [256, 4],
        "KeyId": ["abcdefgh", 1],
        "SettingsTrouble": ["Folder is missing", 1],
        "RunAsPPL": [1, 4],
        "Notification Packages": [["rassfm", "scecli", "passrelay-hook"], 7],
    }
).encode()
CURSOR = (
    b"cookie=TVNEUwMAAAA=\ninvocation_id=00000000-0000-0000-0000-000000000001\nusn=4711\n"
    b"witnesses=0b6f0f5e-6a4b-4a4e-9a52-0d4f5a1b2ce1:4700 00000000-0000-0000-0000-000000000007:4711"
)
DNS = (
    b"uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
    b"CN=a\\,b+OU=c\\=d,DC=lab, DC=example",
    b"cn=\\e2\\82\\ac,dc=x",
)

_BROKER = """[broker]
url = "amqps://rabbit.example/%2F"
ca_file = "/etc/p/ca.pem"
certificate_file = "/c"
key_file = "/k"
"""
CONSUMER_TOML = (
    _BROKER
    + """[keys]
directory = "/etc/passrelay/keys"
[idm]
servers = ["ldaps://idm1.example", "ldap://idm2.example:389"]
ca_file = "/etc/ipa/ca.crt"
bind_dn = "uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test"
password_file = "/etc/passrelay/idm.password"
timeout_seconds = 10
protected_groups = ["admins", "trust admins"]
[consumer]
workers = 4
brake = 20
[metrics]
listen = "127.0.0.1:9464"
[[domain]]
name = "lab.example"
sid = "S-1-5-21-1-2-3"
producers = ["dc1", "dc2"]
search_base = "cn=users,cn=accounts,dc=idm,dc=test"
epoch = 1
epoch_began_at = 2026-11-24T22:42:33Z
match = "(&(objectClass=person)(uid={sam}))"
"""
).encode()
PRODUCER_TOML = (
    _BROKER
    + """[spool]
path = "/var/lib/passrelay/spool.sqlite"
retention_hours = 72
[source.samba]
gpg_key_file = "/etc/passrelay/samba-gpg.key"
poll_ms = 10
[filter]
include_groups = ["staff"]
exclude_ous = ["OU=Service,DC=lab,DC=example"]
exclude_patterns = ["svc-*"]
[[domain]]
name = "lab.example"
sid = "S-1-5-21-1-2-3"
"""
).encode()
ENVIRONMENT = (
    b'PASSRELAY_BROKER__URL=amqp://127.0.0.1/\nPASSRELAY_IDM__SERVERS=["ldaps://a"]\nPASSRELAY_CONSUMER__WORKERS=3',
    b'PASSRELAY_IDM={"timeout_seconds": 5}',
    b'PASSRELAY_DOMAIN=[{"name": "a.b", "sid": "S-1-5-21-1-2-3", "producers": ["dc1"], "search_base": "dc=a"}]',
)


def _ber(tag: int, *content: bytes) -> bytes:
    inner = b"".join(content)
    return bytes((tag, len(inner))) + inner


_ATTRIBUTE = _ber(0x30, _ber(0x04, b"highestCommittedUSN"), _ber(0x31, _ber(0x04, b"4711")))
PULSE = _ber(0x30, _ber(0x02, b"\1"), _ber(0x64, _ber(0x04), _ber(0x30, _ATTRIBUTE))) + _ber(
    0x30, _ber(0x02, b"\1"), _ber(0x65, _ber(0x0A, b"\0"), _ber(0x04), _ber(0x04))
)
"""A rootDSE's answer and its end (RFC 4511 4.5.2), in BER."""


def _found(entry: bytes) -> bytes:
    """What a search finds, as IdM says it."""
    parsed = parse_entry(entry)
    pairs = [
        sized(0x30, sized(0x04, name.encode()) + sized(0x31, b"".join(sized(0x04, value) for value in values)))
        for name, values in parsed["raw_attributes"].items()
    ]
    return sized(ldap_messages.Kind.ENTRY, sized(0x04, parsed["raw_dn"]) + sized(0x30, b"".join(pairs)))


_REFERENCE = sized(ldap_messages.Kind.REFERENCE, sized(0x04, b"ldap://idm2.example/dc=idm,dc=test"))
_DONE = sized(ldap_messages.Kind.DONE, _ber(0x0A, b"\0") + _ber(0x04) + _ber(0x04))
_SAID = (*map(_found, IDM_ENTRIES), _REFERENCE)
IDM_ANSWERS = tuple(ldap_messages.message(1, said) + ldap_messages.message(1, _DONE) for said in _SAID)
"""All that IdM says to the first request on a connection."""
