#include "record.h"

#include "bytes.h"

static int digit(char character)
{
    return character >= '0' && character <= '9';
}

static int letter(char character)
{
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z');
}

static int padded(const char *field, size_t from, size_t size)
{
    for (; from < size; from++)
        if (field[from])
            return 0;
    return 1;
}

int record_domain_sid_good(const char domain_sid[DOMAIN_SID_BYTES])
{
    static const char AUTHORITY[] = "S-1-5-21";
    size_t at = sizeof AUTHORITY - 1;
    if (!bytes_equal(domain_sid, AUTHORITY, at))
        return 0;
    for (int part = 0; part < 3; part++) {
        if (domain_sid[at++] != '-' || !digit(domain_sid[at]))
            return 0;
        if (domain_sid[at] == '0' && digit(domain_sid[at + 1]))
            return 0; /* another spelling of the same SID: the consumer compares text */
        u64 value = 0;
        while (digit(domain_sid[at]) && value <= UINT32_MAX)
            value = 10 * value + (u64)(domain_sid[at++] - '0');
        if (value > UINT32_MAX)
            return 0;
    }
    return padded(domain_sid, at, DOMAIN_SID_BYTES);
}

int record_producer_good(const char producer[PRODUCER_BYTES])
{
    size_t at = 0;
    if (!letter(producer[0]) && !digit(producer[0]))
        return 0;
    while (at < PRODUCER_BYTES && producer[at]) {
        char character = producer[at++];
        if (!letter(character) && !digit(character) && character != '.' && character != '_' && character != '-')
            return 0;
    }
    return padded(producer, at, PRODUCER_BYTES);
}

void record_header(u8 header[HEADER_BYTES], const struct identity *identity)
{
    bytes_copy(header, "passrelay.hook/1", SCHEMA_BYTES);
    header += SCHEMA_BYTES;
    bytes_copy(header, identity->domain_sid, DOMAIN_SID_BYTES);
    header += DOMAIN_SID_BYTES;
    bytes_copy(header, identity->producer, PRODUCER_BYTES);
    header += PRODUCER_BYTES;
    bytes_copy(header, identity->key_id, KEY_ID_BYTES);
}

void record_plain(u8 plain[PLAIN_BYTES], u32 rid, u32 password_bytes, u64 filetime)
{
    bytes_put_u32(plain, rid);
    bytes_put_u32(plain + 4, password_bytes);
    bytes_put_u64(plain + 8, filetime);
}

int record_seal(struct hpke *work, const u8 recipient[P256_POINT_BYTES], const struct identity *identity,
                const u8 plain[PLAIN_BYTES], u8 record[RECORD_BYTES])
{
    record_header(record, identity);
    const struct piece part = {record, PART_BYTES}, info = {record, HEADER_BYTES}, none = {NULL, 0};
    int failed = hpke_seal(work, recipient, NULL, info, none, plain, PLAIN_BYTES, record + HEADER_BYTES);
    return failed ? failed : sha256(&part, 1, record + PART_BYTES);
}

static u16 *hexadecimal(u16 *at, u64 value, int digits)
{
    while (digits--)
        *at++ = (u16)"0123456789abcdef"[value >> (4 * digits) & 15];
    return at;
}

void record_name(u16 name[RECORD_NAME_UNITS], u64 filetime, u32 rid, u32 sequence)
{
    name = hexadecimal(name, filetime, 16);
    *name++ = '-';
    name = hexadecimal(name, rid, 8);
    *name++ = '-';
    hexadecimal(name, sequence, 8);
}
