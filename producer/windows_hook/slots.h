/* Prepared files of a record's size: what is captured while the disk is full goes into them, in place. */
#ifndef SLOTS_H
#define SLOTS_H

#include "settings.h"

enum { SLOTS = 256 };

/* Makes all that are missing, in <folder>\slots: at the start. Returns how many are there. */
int slots_prepare(const WCHAR *folder);
/* Renames one slot to `path`, which takes no space. 0 when there is none. */
int slots_take(const WCHAR *folder, const WCHAR *path);
/* Makes one that is missing, if any: after a record that found its place in the usual way. */
void slots_refill(const WCHAR *folder);
int slots_left(void);

#endif
