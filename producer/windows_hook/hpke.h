/* HPKE (RFC 9180), single-shot, base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Sealing only. */
#ifndef HPKE_H
#define HPKE_H

#include "primitives.h"

enum {
    HPKE_ENCAPSULATED_BYTES = P256_POINT_BYTES,
    HPKE_OVERHEAD_BYTES = HPKE_ENCAPSULATED_BYTES + GCM_TAG_BYTES,
    HPKE_CONTEXT_BYTES = 1 + 2 * SHA256_BYTES,
};

/* Everything secret that sealing makes on its way. The caller owns it and wipes it on every path, after a fault too. */
struct hpke {
    u8 agreed[P256_SCALAR_BYTES];
    u8 extracted[SHA256_BYTES];
    u8 shared_secret[SHA256_BYTES];
    u8 block[SHA256_BYTES];
    u8 context[HPKE_CONTEXT_BYTES];
    u8 key[GCM_KEY_BYTES];
    u8 nonce[GCM_NONCE_BYTES];
};

/* `sealed` gets the encapsulated key, the ciphertext and the tag: length + HPKE_OVERHEAD_BYTES bytes. `given` and
 * `associated` are for test vectors: NULL and nothing everywhere else. Returns 0 or the failed primitive's code. */
int hpke_seal(struct hpke *work, const u8 recipient[P256_POINT_BYTES], const struct key_pair *given, struct piece info,
              struct piece associated, const u8 *plain, size_t length, u8 *sealed);

#endif
