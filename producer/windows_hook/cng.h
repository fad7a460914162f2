/* Windows' cryptography (CNG) behind primitives.h. */
#ifndef CNG_H
#define CNG_H

/* Opens the four algorithms, once; they stay open. Returns 0 or CNG's NTSTATUS. */
int cng_open(void);

#endif
