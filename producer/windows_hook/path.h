/* A path below the folder, built without a library. */
#ifndef PATH_H
#define PATH_H

#include "settings.h"

enum { PATH_UNITS = 260 };

/* folder \ name ending, and a NUL. `units` of `name` are used. */
void path_build(WCHAR path[PATH_UNITS], const WCHAR *folder, const u16 *name, size_t units, const WCHAR *ending);

#endif
