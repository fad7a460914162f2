/* The four primitives that HPKE is made of. cng.c has them from Windows; the unit tests put others in their place.
 * Each returns 0, or an error code of whoever provides it. */
#ifndef PRIMITIVES_H
#define PRIMITIVES_H

#include "platform.h"

enum {
    P256_POINT_BYTES = 65,  /* SEC 1 2.3.3, uncompressed: 4, X, Y */
    P256_SCALAR_BYTES = 32,
    SHA256_BYTES = 32,
    GCM_KEY_BYTES = 32,
    GCM_NONCE_BYTES = 12,
    GCM_TAG_BYTES = 16,
};

struct piece {
    const void *bytes;
    size_t length;
};

/* A key pair that is given, not made: for the test vector of the start-up self-test. */
struct key_pair {
    u8 point[P256_POINT_BYTES];
    u8 scalar[P256_SCALAR_BYTES];
};

int sha256(const struct piece *pieces, size_t count, u8 digest[SHA256_BYTES]);
int hmac_sha256(const u8 key[SHA256_BYTES], const struct piece *pieces, size_t count, u8 mac[SHA256_BYTES]);
/* ECDH on P-256 between a fresh key pair, or `given`, and `other`: the pair's own point and the shared X, big-endian. */
int p256_agree(const u8 other[P256_POINT_BYTES], const struct key_pair *given, u8 own[P256_POINT_BYTES],
               u8 shared[P256_SCALAR_BYTES]);
/* `sealed` gets `length` + GCM_TAG_BYTES bytes. */
int aes256_gcm_seal(const u8 key[GCM_KEY_BYTES], const u8 nonce[GCM_NONCE_BYTES], struct piece associated,
                    const u8 *plain, size_t length, u8 *sealed);

#endif
