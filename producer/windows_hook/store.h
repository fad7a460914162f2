/* Records as files of the folder: temporary name, write, flush, rename. A file that ends in .record is whole. */
#ifndef STORE_H
#define STORE_H

#include "settings.h"

struct stored {
    struct outcome outcome; /* NO_TROUBLE: the record is whole on the disk */
    struct outcome detour;  /* why it went into a prepared slot; NO_TROUBLE when it did not */
    struct outcome unnamed; /* why it has its temporary name still; NO_TROUBLE when it has its final one */
    int slots_changed;      /* there may be more or fewer than before */
};

struct stored store_write(const WCHAR *folder, const u8 record[RECORD_BYTES], u64 filetime, u32 rid);
/* The same steps with a file that is no record and is removed again: can the folder be used? */
struct outcome store_probe(const WCHAR *folder);
/* Where that found no room: can a slot be written anew and flushed, as a change then would do it? `full` when not. */
struct outcome store_probe_slot(const WCHAR *folder, struct outcome full);
/* 1 when that is the disk's fullness. */
int store_full(struct outcome outcome);

#endif
