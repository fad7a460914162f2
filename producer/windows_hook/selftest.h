/* At the start: is what we make what others can open, and can it be kept? */
#ifndef SELFTEST_H
#define SELFTEST_H

#include "settings.h"

/* CNG against a published HPKE vector of this very suite, then a fresh key pair against itself. */
struct outcome selftest_cryptography(void);
/* A record sealed to the recipient key as it is set. */
struct outcome selftest_seal(const struct settings *settings);

#endif
