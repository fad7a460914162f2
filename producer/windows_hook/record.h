/* One captured password as a file (docs/windows.md has the layout):
 *
 *   header      16 "passrelay.hook/1"   48 domain SID   64 producer   32 recipient key id     = HPKE's info, in clear
 *   sealed      65 encapsulated key   528 ciphertext   16 tag
 *   checksum    32 SHA-256 of all before: tells a whole file from a torn one, proves nothing else
 *
 * plain: 4 RID, 4 password length in bytes, 8 FILETIME, 512 password (UTF-16LE), zeros behind; little-endian. */
#ifndef RECORD_H
#define RECORD_H

#include "hpke.h"
#include "recipient.h"

enum {
    SCHEMA_BYTES = 16,
    DOMAIN_SID_BYTES = 48,
    PRODUCER_BYTES = 64,
    KEY_ID_BYTES = 32,
    HEADER_BYTES = SCHEMA_BYTES + DOMAIN_SID_BYTES + PRODUCER_BYTES + KEY_ID_BYTES,
    PASSWORD_BYTES = 512, /* AD's most: 256 UTF-16 units ([MS-SAMR] 3.1.1.7.1) */
    PLAIN_BYTES = 16 + PASSWORD_BYTES,
    PART_BYTES = HEADER_BYTES + PLAIN_BYTES + HPKE_OVERHEAD_BYTES,
    RECORD_BYTES = PART_BYTES + SHA256_BYTES,
    RECORD_NAME_UNITS = 16 + 1 + 8 + 1 + 8, /* without its ending */
};

/* Whom records are from and for. Each text is padded with NUL to its field. */
struct identity {
    char domain_sid[DOMAIN_SID_BYTES];
    char producer[PRODUCER_BYTES];
    char key_id[KEY_ID_BYTES];
};

/* 1 for the SID of an AD domain: S-1-5-21 and three numbers of 32 bits ([MS-DTYP] 2.4.2), in a padded field. */
int record_domain_sid_good(const char domain_sid[DOMAIN_SID_BYTES]);
/* 1 for a producer's name as passrelay_schemas/envelope.py has it, in a padded field. */
int record_producer_good(const char producer[PRODUCER_BYTES]);
void record_header(u8 header[HEADER_BYTES], const struct identity *identity);
/* Everything of the plain bytes but the password, which the caller has put at PLAIN_PASSWORD already. */
enum { PLAIN_PASSWORD = 16 };
void record_plain(u8 plain[PLAIN_BYTES], u32 rid, u32 password_bytes, u64 filetime);
/* Header, sealed plain bytes and checksum. Returns 0 or the failed primitive's code. */
int record_seal(struct hpke *work, const u8 recipient[P256_POINT_BYTES], const struct identity *identity,
                const u8 plain[PLAIN_BYTES], u8 record[RECORD_BYTES]);
/* <FILETIME>-<RID>-<sequence> in lower-case hexadecimal: names in order are records in order. */
void record_name(u16 name[RECORD_NAME_UNITS], u64 filetime, u32 rid, u32 sequence);

#endif
