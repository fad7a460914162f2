/* The consumers' recipient key: is it a point of P-256, and which id has it? */
#ifndef RECIPIENT_H
#define RECIPIENT_H

#include "primitives.h"

enum { KEY_ID_CHARACTERS = 24 };

/* 1 when the bytes are an uncompressed point of the curve. Windows' CNG checks that itself, others do not; what is
 * sealed to another point could never be opened again. */
int recipient_on_curve(const u8 point[P256_POINT_BYTES]);
/* The key's id as passrelay_schemas/keys.py makes it: base64url of the first 18 bytes of SHA-256(algorithm NUL point).
 * It finds every damaged key. Returns 0 or the failed primitive's code. */
int recipient_key_id(const u8 point[P256_POINT_BYTES], char id[KEY_ID_CHARACTERS]);

#endif
