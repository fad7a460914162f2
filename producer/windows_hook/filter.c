#include "filter.h"

static int begins_with(const u16 *name, size_t units, const char *lower)
{
    for (; *lower; lower++, name++, units--) {
        if (!units)
            return 0;
        u16 unit = *name >= 'A' && *name <= 'Z' ? (u16)(*name + ('a' - 'A')) : *name;
        if (unit != (u16)*lower)
            return 0;
    }
    return 1;
}

enum decision filter(const u16 *name, size_t units, u32 rid, size_t password_bytes)
{
    if (!password_bytes)
        return SKIP_EMPTY;
    if (name && units && name[units - 1] == '$')
        return SKIP_MACHINE;
    if (name && begins_with(name, units, "krbtgt"))
        return SKIP_KRBTGT;
    if (rid >= 500 && rid <= 502)
        return SKIP_BUILT_IN;
    return CAPTURE;
}
