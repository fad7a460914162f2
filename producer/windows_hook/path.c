#include "path.h"

void path_build(WCHAR path[PATH_UNITS], const WCHAR *folder, const u16 *name, size_t units, const WCHAR *ending)
{
    size_t at = 0;
    while (at < FOLDER_UNITS && folder[at]) {
        path[at] = folder[at];
        at++;
    }
    path[at++] = '\\';
    for (size_t i = 0; i < units && at < PATH_UNITS - 1; i++)
        path[at++] = name[i];
    while (*ending && at < PATH_UNITS - 1)
        path[at++] = *ending++;
    path[at] = 0;
}
