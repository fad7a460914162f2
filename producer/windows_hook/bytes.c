#include "bytes.h"

void bytes_wipe(void *at, size_t length)
{
    volatile u8 *byte = at;
    while (length--)
        *byte++ = 0;
}

void bytes_copy(void *to, const void *from, size_t length)
{
    u8 *target = to;
    const u8 *source = from;
    while (length--)
        *target++ = *source++;
}

int bytes_equal(const void *one, const void *other, size_t length)
{
    const u8 *left = one, *right = other;
    while (length--)
        if (*left++ != *right++)
            return 0;
    return 1;
}

void bytes_put_u32(u8 *at, u32 value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (u8)(value >> (8 * i));
}

void bytes_put_u64(u8 *at, u64 value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (u8)(value >> (8 * i));
}

#ifdef _WIN32
/* The compiler calls these three by itself, and there is no C library here to have them. */
void *memcpy(void *to, const void *from, size_t length)
{
    bytes_copy(to, from, length);
    return to;
}

void *memset(void *at, int value, size_t length)
{
    u8 *byte = at;
    while (length--)
        *byte++ = (u8)value;
    return at;
}

int memcmp(const void *one, const void *other, size_t length)
{
    const u8 *left = one, *right = other;
    for (; length; length--, left++, right++)
        if (*left != *right)
            return *left < *right ? -1 : 1;
    return 0;
}
#endif
