/* Test only: a bcrypt.dll for wine 8, whose own cannot do ECDH. It stands beside the harness (WINEDLLOVERRIDES=bcrypt=n,b),
 * does SecretAgreement, DeriveKey(RAW_SECRET) and DestroySecret on P-256, and hands everything else to wine's own.
 * Nothing here takes constant time; it never meets a real password. */
#define WIN32_LEAN_AND_MEAN
#define WIN32_NO_STATUS
#include <windows.h>

#define BCryptSecretAgreement header_BCryptSecretAgreement
#define BCryptDeriveKey header_BCryptDeriveKey
#define BCryptDestroySecret header_BCryptDestroySecret
#include <bcrypt.h>
#undef BCryptSecretAgreement
#undef BCryptDeriveKey
#undef BCryptDestroySecret

#define NOT_DONE ((NTSTATUS)0xC0000001)
#define EXPORT __declspec(dllexport)

typedef unsigned long long word;
typedef unsigned __int128 wide;
typedef struct {
    word at[4];
} number; /* below P, in Montgomery form: times 2^256 */

static const number P = {{0xFFFFFFFFFFFFFFFF, 0x00000000FFFFFFFF, 0, 0xFFFFFFFF00000001}};
static const number SQUARE_OF_R = {{3, 0xFFFFFFFBFFFFFFFF, 0xFFFFFFFFFFFFFFFE, 0x00000004FFFFFFFD}}; /* 2^512 mod P */

static number less_p(number value, word carry)
{
    number reduced;
    word borrow = 0;
    for (int i = 0; i < 4; i++) {
        wide difference = (wide)value.at[i] - P.at[i] - borrow;
        reduced.at[i] = (word)difference;
        borrow = (word)(difference >> 64) & 1;
    }
    return carry || !borrow ? reduced : value;
}

/* Montgomery's product (CIOS). -1/P modulo 2^64 is 1. */
static number times(number a, number b)
{
    word t[6] = {0};
    for (int i = 0; i < 4; i++) {
        word carry = 0;
        for (int j = 0; j < 4; j++) {
            wide sum = (wide)a.at[j] * b.at[i] + t[j] + carry;
            t[j] = (word)sum;
            carry = (word)(sum >> 64);
        }
        wide top = (wide)t[4] + carry;
        t[4] = (word)top;
        t[5] = (word)(top >> 64);
        word m = t[0];
        carry = (word)(((wide)m * P.at[0] + t[0]) >> 64);
        for (int j = 1; j < 4; j++) {
            wide sum = (wide)m * P.at[j] + t[j] + carry;
            t[j - 1] = (word)sum;
            carry = (word)(sum >> 64);
        }
        top = (wide)t[4] + carry;
        t[3] = (word)top;
        t[4] = t[5] + (word)(top >> 64);
    }
    return less_p((number){{t[0], t[1], t[2], t[3]}}, t[4]);
}

static number plus(number a, number b)
{
    word carry = 0;
    for (int i = 0; i < 4; i++) {
        wide sum = (wide)a.at[i] + b.at[i] + carry;
        a.at[i] = (word)sum;
        carry = (word)(sum >> 64);
    }
    return less_p(a, carry);
}

static number minus(number a, number b)
{
    word borrow = 0;
    for (int i = 0; i < 4; i++) {
        wide difference = (wide)a.at[i] - b.at[i] - borrow;
        a.at[i] = (word)difference;
        borrow = (word)(difference >> 64) & 1;
    }
    word carry = 0;
    for (int i = 0; borrow && i < 4; i++) {
        wide sum = (wide)a.at[i] + P.at[i] + carry;
        a.at[i] = (word)sum;
        carry = (word)(sum >> 64);
    }
    return a;
}

static number read_number(const BYTE *bytes)
{
    number value = {{0}};
    for (int i = 0; i < 32; i++)
        value.at[3 - i / 8] = value.at[3 - i / 8] << 8 | bytes[i];
    return value;
}

static void write_little_endian(BYTE *bytes, number value)
{
    for (int i = 0; i < 32; i++)
        bytes[i] = (BYTE)(value.at[i / 8] >> (8 * (i % 8)));
}

struct point {
    number x, y, z; /* Jacobian */
};

/* Explicit-Formulas Database, shortw jacobian-3: dbl-2001-b. */
static struct point twice(struct point p)
{
    number delta = times(p.z, p.z), gamma = times(p.y, p.y), beta = times(p.x, gamma);
    number part = times(minus(p.x, delta), plus(p.x, delta)), alpha = plus(part, plus(part, part));
    number four_beta = plus(plus(beta, beta), plus(beta, beta)), yz = plus(p.y, p.z), square = times(gamma, gamma);
    number eight = plus(plus(square, square), plus(square, square));
    struct point sum;
    eight = plus(eight, eight);
    sum.x = minus(times(alpha, alpha), plus(four_beta, four_beta));
    sum.z = minus(minus(times(yz, yz), gamma), delta);
    sum.y = minus(times(alpha, minus(four_beta, sum.x)), eight);
    return sum;
}

/* add-1998-cmo-2. Never of equal points: the scalars are below the order. */
static struct point add(struct point p, struct point q)
{
    number z1 = times(p.z, p.z), z2 = times(q.z, q.z), u1 = times(p.x, z2), u2 = times(q.x, z1);
    number s1 = times(times(p.y, q.z), z2), s2 = times(times(q.y, p.z), z1), h = minus(u2, u1), r = minus(s2, s1);
    number hh = times(h, h), hhh = times(h, hh), v = times(u1, hh);
    struct point sum;
    sum.x = minus(minus(times(r, r), hhh), plus(v, v));
    sum.y = minus(times(r, minus(v, sum.x)), times(s1, hhh));
    sum.z = times(times(p.z, q.z), h);
    return sum;
}

static int bit(number scalar, int at)
{
    return (int)(scalar.at[at / 64] >> (at % 64) & 1);
}

static void multiply(const BYTE *scalar_bytes, const BYTE *x, const BYTE *y, BYTE shared[32])
{
    static const number ONE = {{1}};
    static const number EXPONENT = {{0xFFFFFFFFFFFFFFFD, 0x00000000FFFFFFFF, 0, 0xFFFFFFFF00000001}}; /* P - 2 */
    number scalar = read_number(scalar_bytes), one = times(ONE, SQUARE_OF_R), inverse = one;
    struct point base = {times(read_number(x), SQUARE_OF_R), times(read_number(y), SQUARE_OF_R), one}, sum = base;
    int at = 255;
    while (at > 0 && !bit(scalar, at))
        at--;
    while (at-- > 0) {
        sum = twice(sum);
        if (bit(scalar, at))
            sum = add(sum, base);
    }
    for (int i = 255; i >= 0; i--) {
        inverse = times(inverse, inverse);
        if (bit(EXPONENT, i))
            inverse = times(inverse, sum.z);
    }
    write_little_endian(shared, times(times(sum.x, times(inverse, inverse)), ONE));
}

static FARPROC own(const char *name)
{
    static HMODULE library;
    if (!library) {
        HMODULE loaded = LoadLibraryW(L"C:\\windows\\system32\\bcrypt.dll");
        InterlockedCompareExchangePointer((void **)&library, loaded, NULL);
    }
    return GetProcAddress(library, name);
}

#define OWN(name) ((__typeof__(&name))(void *)own(#name))

struct secret {
    BYTE shared[32];
};

struct blob {
    BCRYPT_ECCKEY_BLOB head;
    BYTE x[32], y[32], scalar[32];
};

EXPORT NTSTATUS WINAPI BCryptSecretAgreement(BCRYPT_KEY_HANDLE pair, BCRYPT_KEY_HANDLE other, BCRYPT_SECRET_HANDLE *secret,
                                             ULONG flags)
{
    struct blob ours, theirs;
    ULONG length;
    (void)flags;
    NTSTATUS failed = OWN(BCryptExportKey)(pair, NULL, BCRYPT_ECCPRIVATE_BLOB, (PUCHAR)&ours, sizeof ours, &length, 0);
    if (!failed)
        failed = OWN(BCryptExportKey)(other, NULL, BCRYPT_ECCPUBLIC_BLOB, (PUCHAR)&theirs, sizeof theirs, &length, 0);
    if (failed)
        return failed;
    struct secret *made = HeapAlloc(GetProcessHeap(), 0, sizeof *made);
    multiply(ours.scalar, theirs.x, theirs.y, made->shared);
    *secret = made;
    return 0;
}

EXPORT NTSTATUS WINAPI BCryptDeriveKey(BCRYPT_SECRET_HANDLE secret, LPCWSTR kdf, BCryptBufferDesc *parameters, PUCHAR out,
                                       ULONG size, ULONG *length, ULONG flags)
{
    (void)parameters, (void)flags;
    if (lstrcmpW(kdf, BCRYPT_KDF_RAW_SECRET) || size < 32)
        return NOT_DONE;
    for (int i = 0; i < 32; i++)
        out[i] = ((struct secret *)secret)->shared[i];
    *length = 32;
    return 0;
}

EXPORT NTSTATUS WINAPI BCryptDestroySecret(BCRYPT_SECRET_HANDLE secret)
{
    SecureZeroMemory(secret, sizeof(struct secret));
    return HeapFree(GetProcessHeap(), 0, secret) ? 0 : NOT_DONE;
}

/* Everything else: the names are exported below, the calls go on as they come. The library is loaded by the first call of
 * any of them, BCryptOpenAlgorithmProvider, so `own` may be asked before each. */
#define FORWARD(name, parameters, arguments)                                                                              \
    EXPORT NTSTATUS WINAPI forward_##name parameters                                                                      \
    {                                                                                                                     \
        return OWN(name) arguments;                                                                                       \
    }

FORWARD(BCryptOpenAlgorithmProvider, (BCRYPT_ALG_HANDLE * a, LPCWSTR b, LPCWSTR c, ULONG d), (a, b, c, d))
FORWARD(BCryptSetProperty, (BCRYPT_HANDLE a, LPCWSTR b, PUCHAR c, ULONG d, ULONG e), (a, b, c, d, e))
FORWARD(BCryptCreateHash, (BCRYPT_ALG_HANDLE a, BCRYPT_HASH_HANDLE *b, PUCHAR c, ULONG d, PUCHAR e, ULONG f, ULONG g),
        (a, b, c, d, e, f, g))
FORWARD(BCryptHashData, (BCRYPT_HASH_HANDLE a, PUCHAR b, ULONG c, ULONG d), (a, b, c, d))
FORWARD(BCryptFinishHash, (BCRYPT_HASH_HANDLE a, PUCHAR b, ULONG c, ULONG d), (a, b, c, d))
FORWARD(BCryptDestroyHash, (BCRYPT_HASH_HANDLE a), (a))
FORWARD(BCryptGenerateKeyPair, (BCRYPT_ALG_HANDLE a, BCRYPT_KEY_HANDLE *b, ULONG c, ULONG d), (a, b, c, d))
FORWARD(BCryptFinalizeKeyPair, (BCRYPT_KEY_HANDLE a, ULONG b), (a, b))
FORWARD(BCryptImportKeyPair,
        (BCRYPT_ALG_HANDLE a, BCRYPT_KEY_HANDLE b, LPCWSTR c, BCRYPT_KEY_HANDLE *d, PUCHAR e, ULONG f, ULONG g),
        (a, b, c, d, e, f, g))
FORWARD(BCryptExportKey, (BCRYPT_KEY_HANDLE a, BCRYPT_KEY_HANDLE b, LPCWSTR c, PUCHAR d, ULONG e, ULONG *f, ULONG g),
        (a, b, c, d, e, f, g))
FORWARD(BCryptGenerateSymmetricKey,
        (BCRYPT_ALG_HANDLE a, BCRYPT_KEY_HANDLE *b, PUCHAR c, ULONG d, PUCHAR e, ULONG f, ULONG g), (a, b, c, d, e, f, g))
FORWARD(BCryptEncrypt,
        (BCRYPT_KEY_HANDLE a, PUCHAR b, ULONG c, VOID *d, PUCHAR e, ULONG f, PUCHAR g, ULONG h, ULONG *i, ULONG j),
        (a, b, c, d, e, f, g, h, i, j))
FORWARD(BCryptDestroyKey, (BCRYPT_KEY_HANDLE a), (a))

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, LPVOID reserved)
{
    (void)instance, (void)reason, (void)reserved;
    return TRUE;
}
