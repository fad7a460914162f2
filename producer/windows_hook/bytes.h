/* Bytes: copied, compared, wiped, and numbers in a fixed byte order. */
#ifndef BYTES_H
#define BYTES_H

#include "platform.h"

/* Zeros that the compiler may not leave out. */
void bytes_wipe(void *at, size_t length);
void bytes_copy(void *to, const void *from, size_t length);
/* 1 when equal. For public values: it stops at the first difference. */
int bytes_equal(const void *one, const void *other, size_t length);
void bytes_put_u32(u8 *at, u32 value); /* little-endian */
void bytes_put_u64(u8 *at, u64 value); /* little-endian */

#endif
