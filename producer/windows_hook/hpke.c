#include "hpke.h"

#include "bytes.h"

/* RFC 9180 7: KEM 0x0010, KDF 0x0001, AEAD 0x0002; 4.1 and 5.1: the suite ids of the KEM's and of HPKE's own labels. */
static const u8 KEM_SUITE[] = {'K', 'E', 'M', 0x00, 0x10};
static const u8 HPKE_SUITE[] = {'H', 'P', 'K', 'E', 0x00, 0x10, 0x00, 0x01, 0x00, 0x02};
static const u8 NO_SALT[SHA256_BYTES];

#define LABEL(literal) ((struct piece){literal, sizeof(literal) - 1})
#define ARRAY(array) ((struct piece){array, sizeof(array)})
#define NOTHING ((struct piece){NULL, 0})

/* LabeledExtract (RFC 9180 4): HMAC(salt, "HPKE-v1" suite label ikm). */
static int extract(const u8 salt[SHA256_BYTES], struct piece suite, struct piece label, struct piece ikm, u8 *prk)
{
    const struct piece pieces[] = {LABEL("HPKE-v1"), suite, label, ikm};
    return hmac_sha256(salt, pieces, 4, prk);
}

/* LabeledExpand (RFC 9180 4) to at most one block, which is all that this suite needs: T(1) of HKDF (RFC 5869 2.3). */
static int expand(struct hpke *work, const u8 prk[SHA256_BYTES], struct piece suite, struct piece label,
                  struct piece one, struct piece two, u8 *out, size_t length)
{
    const u8 wanted[2] = {0, (u8)length}, counter[1] = {1};
    const struct piece pieces[] = {ARRAY(wanted), LABEL("HPKE-v1"), suite, label, one, two, ARRAY(counter)};
    int failed = hmac_sha256(prk, pieces, 7, work->block);
    if (!failed)
        bytes_copy(out, work->block, length);
    return failed;
}

/* Encap (RFC 9180 4.1): the encapsulated key and work->shared_secret. */
static int encapsulate(struct hpke *work, const u8 recipient[P256_POINT_BYTES], const struct key_pair *given,
                       u8 encapsulated[HPKE_ENCAPSULATED_BYTES])
{
    int failed = p256_agree(recipient, given, encapsulated, work->agreed);
    if (!failed)
        failed = extract(NO_SALT, ARRAY(KEM_SUITE), LABEL("eae_prk"), ARRAY(work->agreed), work->extracted);
    if (!failed)
        failed = expand(work, work->extracted, ARRAY(KEM_SUITE), LABEL("shared_secret"),
                        (struct piece){encapsulated, HPKE_ENCAPSULATED_BYTES},
                        (struct piece){recipient, P256_POINT_BYTES}, work->shared_secret, SHA256_BYTES);
    return failed;
}

/* KeySchedule (RFC 9180 5.1), base mode: work->key and work->nonce. */
static int schedule(struct hpke *work, struct piece info)
{
    work->context[0] = 0; /* mode_base */
    int failed = extract(NO_SALT, ARRAY(HPKE_SUITE), LABEL("psk_id_hash"), NOTHING, work->context + 1);
    if (!failed)
        failed = extract(NO_SALT, ARRAY(HPKE_SUITE), LABEL("info_hash"), info, work->context + 1 + SHA256_BYTES);
    if (!failed)
        failed = extract(work->shared_secret, ARRAY(HPKE_SUITE), LABEL("secret"), NOTHING, work->extracted);
    if (!failed)
        failed = expand(work, work->extracted, ARRAY(HPKE_SUITE), LABEL("key"), ARRAY(work->context), NOTHING, work->key,
                        GCM_KEY_BYTES);
    if (!failed)
        failed = expand(work, work->extracted, ARRAY(HPKE_SUITE), LABEL("base_nonce"), ARRAY(work->context), NOTHING,
                        work->nonce, GCM_NONCE_BYTES);
    return failed;
}

int hpke_seal(struct hpke *work, const u8 recipient[P256_POINT_BYTES], const struct key_pair *given, struct piece info,
              struct piece associated, const u8 *plain, size_t length, u8 *sealed)
{
    int failed = encapsulate(work, recipient, given, sealed);
    if (!failed)
        failed = schedule(work, info);
    /* The first message of a context: its nonce is base_nonce XOR 0 (RFC 9180 5.2). */
    if (!failed)
        failed = aes256_gcm_seal(work->key, work->nonce, associated, plain, length, sealed + HPKE_ENCAPSULATED_BYTES);
    return failed;
}
