#include "cng.h"

#include "bytes.h"
#include "primitives.h"

#include <bcrypt.h> /* needs windows.h before it */

/* Server 2012 R2 and later: there is no KDF but the raw secret, no one-call hash, and no HKDF. */

static BCRYPT_ALG_HANDLE digest_algorithm, mac_algorithm, curve_algorithm, cipher_algorithm;

/* BCRYPT_ECCPUBLIC_BLOB and BCRYPT_ECCPRIVATE_BLOB: all numbers big-endian. */
struct curve_blob {
    BCRYPT_ECCKEY_BLOB head;
    u8 x[P256_SCALAR_BYTES], y[P256_SCALAR_BYTES], scalar[P256_SCALAR_BYTES];
};
enum {
    PUBLIC_BLOB_BYTES = offsetof(struct curve_blob, scalar),
    PRIVATE_BLOB_BYTES = sizeof(struct curve_blob),
};

static NTSTATUS open_once(BCRYPT_ALG_HANDLE *handle, LPCWSTR name, ULONG flags)
{
    return *handle ? 0 : BCryptOpenAlgorithmProvider(handle, name, NULL, flags);
}

int cng_open(void)
{
    NTSTATUS failed = open_once(&digest_algorithm, BCRYPT_SHA256_ALGORITHM, 0);
    if (!failed)
        failed = open_once(&mac_algorithm, BCRYPT_SHA256_ALGORITHM, BCRYPT_ALG_HANDLE_HMAC_FLAG);
    if (!failed)
        failed = open_once(&curve_algorithm, BCRYPT_ECDH_P256_ALGORITHM, 0);
    if (!failed)
        failed = open_once(&cipher_algorithm, BCRYPT_AES_ALGORITHM, 0);
    if (!failed)
        failed = BCryptSetProperty(cipher_algorithm, BCRYPT_CHAINING_MODE, (PUCHAR)BCRYPT_CHAIN_MODE_GCM,
                                   sizeof BCRYPT_CHAIN_MODE_GCM, 0);
    return (int)failed;
}

static int hash(BCRYPT_ALG_HANDLE algorithm, const u8 *key, const struct piece *pieces, size_t count, u8 *out)
{
    BCRYPT_HASH_HANDLE handle = NULL;
    NTSTATUS failed =
        BCryptCreateHash(algorithm, &handle, NULL, 0, (PUCHAR)key, key ? SHA256_BYTES : 0, 0);
    for (size_t i = 0; !failed && i < count; i++)
        if (pieces[i].length)
            failed = BCryptHashData(handle, (PUCHAR)pieces[i].bytes, (ULONG)pieces[i].length, 0);
    if (!failed)
        failed = BCryptFinishHash(handle, out, SHA256_BYTES, 0);
    if (handle)
        BCryptDestroyHash(handle);
    return (int)failed;
}

int sha256(const struct piece *pieces, size_t count, u8 digest[SHA256_BYTES])
{
    return hash(digest_algorithm, NULL, pieces, count, digest);
}

int hmac_sha256(const u8 key[SHA256_BYTES], const struct piece *pieces, size_t count, u8 mac[SHA256_BYTES])
{
    return hash(mac_algorithm, key, pieces, count, mac);
}

static void fill(struct curve_blob *blob, ULONG magic, const u8 point[P256_POINT_BYTES])
{
    blob->head.dwMagic = magic;
    blob->head.cbKey = P256_SCALAR_BYTES;
    bytes_copy(blob->x, point + 1, 2 * P256_SCALAR_BYTES);
}

static NTSTATUS own_pair(const struct key_pair *given, BCRYPT_KEY_HANDLE *pair)
{
    if (given) {
        struct curve_blob blob;
        fill(&blob, BCRYPT_ECDH_PRIVATE_P256_MAGIC, given->point);
        bytes_copy(blob.scalar, given->scalar, P256_SCALAR_BYTES);
        return BCryptImportKeyPair(curve_algorithm, NULL, BCRYPT_ECCPRIVATE_BLOB, pair, (PUCHAR)&blob,
                                   PRIVATE_BLOB_BYTES, 0);
    }
    NTSTATUS failed = BCryptGenerateKeyPair(curve_algorithm, pair, 256, 0);
    return failed ? failed : BCryptFinalizeKeyPair(*pair, 0);
}

static NTSTATUS own_point(BCRYPT_KEY_HANDLE pair, u8 point[P256_POINT_BYTES])
{
    struct curve_blob blob;
    ULONG length = 0;
    NTSTATUS failed =
        BCryptExportKey(pair, NULL, BCRYPT_ECCPUBLIC_BLOB, (PUCHAR)&blob, PUBLIC_BLOB_BYTES, &length, 0);
    if (!failed && length != PUBLIC_BLOB_BYTES)
        failed = (NTSTATUS)0xC0000004; /* STATUS_INFO_LENGTH_MISMATCH */
    if (!failed) {
        point[0] = 4;
        bytes_copy(point + 1, blob.x, 2 * P256_SCALAR_BYTES);
    }
    return failed;
}

/* BCRYPT_KDF_RAW_SECRET hands out the shared X little-endian; RFC 9180 7.1.1 wants it big-endian. */
static NTSTATUS raw_secret(BCRYPT_SECRET_HANDLE secret, u8 shared[P256_SCALAR_BYTES])
{
    ULONG length = 0;
    NTSTATUS failed = BCryptDeriveKey(secret, BCRYPT_KDF_RAW_SECRET, NULL, shared, P256_SCALAR_BYTES, &length, 0);
    if (!failed && length != P256_SCALAR_BYTES)
        failed = (NTSTATUS)0xC0000004;
    for (int low = 0, high = P256_SCALAR_BYTES - 1; low < high; low++, high--) {
        u8 byte = shared[low];
        shared[low] = shared[high];
        shared[high] = byte;
    }
    return failed;
}

int p256_agree(const u8 other[P256_POINT_BYTES], const struct key_pair *given, u8 own[P256_POINT_BYTES],
               u8 shared[P256_SCALAR_BYTES])
{
    struct curve_blob blob;
    BCRYPT_KEY_HANDLE theirs = NULL, pair = NULL;
    BCRYPT_SECRET_HANDLE secret = NULL;
    fill(&blob, BCRYPT_ECDH_PUBLIC_P256_MAGIC, other);
    NTSTATUS failed = BCryptImportKeyPair(curve_algorithm, NULL, BCRYPT_ECCPUBLIC_BLOB, &theirs, (PUCHAR)&blob,
                                          PUBLIC_BLOB_BYTES, 0);
    if (!failed)
        failed = own_pair(given, &pair);
    if (!failed)
        failed = own_point(pair, own);
    if (!failed)
        failed = BCryptSecretAgreement(pair, theirs, &secret, 0);
    if (!failed)
        failed = raw_secret(secret, shared);
    if (secret)
        BCryptDestroySecret(secret);
    if (pair)
        BCryptDestroyKey(pair);
    if (theirs)
        BCryptDestroyKey(theirs);
    return (int)failed;
}

int aes256_gcm_seal(const u8 key[GCM_KEY_BYTES], const u8 nonce[GCM_NONCE_BYTES], struct piece associated,
                    const u8 *plain, size_t length, u8 *sealed)
{
    BCRYPT_KEY_HANDLE handle = NULL;
    ULONG written = 0;
    BCRYPT_AUTHENTICATED_CIPHER_MODE_INFO mode;
    BCRYPT_INIT_AUTH_MODE_INFO(mode);
    mode.pbNonce = (PUCHAR)nonce;
    mode.cbNonce = GCM_NONCE_BYTES;
    mode.pbAuthData = (PUCHAR)associated.bytes;
    mode.cbAuthData = (ULONG)associated.length;
    mode.pbTag = sealed + length;
    mode.cbTag = GCM_TAG_BYTES;
    NTSTATUS failed = BCryptGenerateSymmetricKey(cipher_algorithm, &handle, NULL, 0, (PUCHAR)key, GCM_KEY_BYTES, 0);
    if (!failed)
        failed = BCryptEncrypt(handle, (PUCHAR)plain, (ULONG)length, &mode, NULL, 0, sealed, (ULONG)length, &written, 0);
    if (!failed && written != length)
        failed = (NTSTATUS)0xC0000004;
    if (handle)
        BCryptDestroyKey(handle);
    return (int)failed;
}
