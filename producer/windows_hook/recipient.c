#include "recipient.h"

#include "bytes.h"

/* Numbers below 2^256, least significant word first. All of them are public: nothing here takes constant time. */
typedef struct {
    u64 word[4];
} number;

/* SEC 2 2.4.2, NIST SP 800-186 3.2.1.3: y^2 = x^3 - 3x + B modulo P. */
static const number P = {{0xFFFFFFFFFFFFFFFF, 0x00000000FFFFFFFF, 0x0000000000000000, 0xFFFFFFFF00000001}};
static const number B = {{0x3BCE3C3E27D2604B, 0x651D06B0CC53B0F6, 0xB3EBBD55769886BC, 0x5AC635D8AA3A93E7}};

static number from_bytes(const u8 *bytes)
{
    number value = {{0}};
    for (int i = 0; i < 32; i++)
        value.word[3 - i / 8] = value.word[3 - i / 8] << 8 | bytes[i];
    return value;
}

static int equal(const number *one, const number *other)
{
    return bytes_equal(one, other, sizeof *one);
}

static u64 subtract(number *from, const number *what)
{
    u64 borrow = 0;
    for (int i = 0; i < 4; i++) {
        unsigned __int128 difference = (unsigned __int128)from->word[i] - what->word[i] - borrow;
        from->word[i] = (u64)difference;
        borrow = (u64)(difference >> 64) & 1;
    }
    return borrow;
}

static int below_p(const number *value)
{
    number copy = *value;
    return (int)subtract(&copy, &P);
}

static number sum(const number *one, const number *other)
{
    number total;
    u64 carry = 0;
    for (int i = 0; i < 4; i++) {
        unsigned __int128 word = (unsigned __int128)one->word[i] + other->word[i] + carry;
        total.word[i] = (u64)word;
        carry = (u64)(word >> 64);
    }
    if (carry || !below_p(&total))
        subtract(&total, &P);
    return total;
}

static number product(const number *one, const number *other)
{
    number total = {{0}};
    for (int bit = 255; bit >= 0; bit--) {
        total = sum(&total, &total);
        if (other->word[bit / 64] >> (bit % 64) & 1)
            total = sum(&total, one);
    }
    return total;
}

int recipient_on_curve(const u8 point[P256_POINT_BYTES])
{
    if (point[0] != 4)
        return 0;
    number x = from_bytes(point + 1), y = from_bytes(point + 33);
    if (!below_p(&x) || !below_p(&y))
        return 0;
    /* y^2 + 3x = x^3 + B, so that nothing becomes negative. */
    number square = product(&x, &x), cube = product(&square, &x), left = product(&y, &y);
    for (int i = 0; i < 3; i++)
        left = sum(&left, &x);
    number right = sum(&cube, &B);
    return equal(&left, &right);
}

int recipient_key_id(const u8 point[P256_POINT_BYTES], char id[KEY_ID_CHARACTERS])
{
    static const char ALGORITHM[] = "HPKE-P256-HKDFSHA256-AES256GCM"; /* its NUL is hashed too */
    static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const struct piece pieces[] = {{ALGORITHM, sizeof ALGORITHM}, {point, P256_POINT_BYTES}};
    u8 digest[SHA256_BYTES];
    int failed = sha256(pieces, 2, digest);
    if (failed)
        return failed;
    for (int i = 0; i < KEY_ID_CHARACTERS / 4; i++) {
        u32 three = (u32)digest[3 * i] << 16 | (u32)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++)
            id[4 * i + j] = ALPHABET[three >> (18 - 6 * j) & 63];
    }
    return 0;
}
