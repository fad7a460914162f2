/* Prepared files of a record's size: what is captured while the disk is full goes into them, in place. */
#ifndef SLOTS_H
#define SLOTS_H

#include "path.h"

enum { SLOTS = 256 };

/* Makes all that are missing, in <folder>\slots: at the start. Returns 0, or Windows' code of the last that failed. */
u32 slots_prepare(const WCHAR *folder);
/* The path of one that is there. 0 when there is none. */
int slots_find(const WCHAR *folder, WCHAR path[PATH_UNITS]);
/* Renames one slot to `path`, which takes no space. 0 when there is none. */
int slots_take(const WCHAR *folder, const WCHAR *path);
/* Makes one that is missing, if any: after a record that found its place in the usual way. 1 when it made one. */
int slots_refill(const WCHAR *folder);
int slots_left(void);

#endif
