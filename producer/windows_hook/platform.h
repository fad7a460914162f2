/* What every file needs: plain integer types, and Windows where the file is compiled for it. The files that name no
 * Windows call (bytes, recipient, hpke, record, filter) are compiled for Linux too, by the unit tests. */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define WIN32_NO_STATUS
#include <windows.h>
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#endif
