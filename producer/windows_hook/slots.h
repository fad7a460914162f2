/* Prepared files of a record's size: what is captured while the disk is full goes into them, in place. */
#ifndef SLOTS_H
#define SLOTS_H

#include "path.h"

enum { SLOTS = 256 };

/* Makes all that are missing, in <folder>\slots: at the start. Returns 0, or Windows' code of the last that failed. */
u32 slots_prepare(const WCHAR *folder);
/* `looked_at` is 0 at first: so many slots a caller has had before, and no slot is given to him twice.
 * The path of one that is there. 0 when there is no further one. */
int slots_find(const WCHAR *folder, int *looked_at, WCHAR path[PATH_UNITS]);
/* Renames one slot to `path`, which takes no space; one that another program holds is passed over. 0 when there is no
 * further one, or none can get that path. */
int slots_take(const WCHAR *folder, int *looked_at, const WCHAR *path);
/* Makes one that is missing, if any: after a record that found its place in the usual way. 1 when it made one. */
int slots_refill(const WCHAR *folder);
/* 1, once, when another folder is in use than slots_prepare was called for: its slots are missing. */
int slots_moved(void);
int slots_left(void);

#endif
