/* Unit tests only: the primitives are whatever the test puts here. */
#include "primitives.h"

int (*test_sha256)(const struct piece *, size_t, u8 *);
int (*test_hmac_sha256)(const u8 *, const struct piece *, size_t, u8 *);
int (*test_p256_agree)(const u8 *, const struct key_pair *, u8 *, u8 *);
int (*test_aes256_gcm_seal)(const u8 *, const u8 *, const struct piece *, const u8 *, size_t, u8 *);

int sha256(const struct piece *pieces, size_t count, u8 digest[SHA256_BYTES])
{
    return test_sha256(pieces, count, digest);
}

int hmac_sha256(const u8 key[SHA256_BYTES], const struct piece *pieces, size_t count, u8 mac[SHA256_BYTES])
{
    return test_hmac_sha256(key, pieces, count, mac);
}

int p256_agree(const u8 other[P256_POINT_BYTES], const struct key_pair *given, u8 own[P256_POINT_BYTES],
               u8 shared[P256_SCALAR_BYTES])
{
    return test_p256_agree(other, given, own, shared);
}

int aes256_gcm_seal(const u8 key[GCM_KEY_BYTES], const u8 nonce[GCM_NONCE_BYTES], struct piece associated,
                    const u8 *plain, size_t length, u8 *sealed)
{
    return test_aes256_gcm_seal(key, nonce, &associated, plain, length, sealed);
}
