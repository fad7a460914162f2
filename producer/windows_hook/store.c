#include "store.h"

#include "path.h"
#include "slots.h"

#define TEMPORARY L".new"
#define FINAL L".record"

enum { TRIES = 8, TAKEN_AFTER = 600000000 /* 60 s: hook_folder.py's NEW_SECONDS */ };

struct place {
    WCHAR temporary[PATH_UNITS], final[PATH_UNITS];
};

static volatile LONG sequence;

static struct outcome last(enum trouble trouble)
{
    return (struct outcome){trouble, GetLastError()};
}

/* All of the record onto the disk itself. Nobody may open the file before it is closed. */
static struct outcome fill(const WCHAR *path, DWORD creation, const u8 *bytes)
{
    struct outcome outcome = {NO_TROUBLE, 0};
    DWORD written = 0;
    HANDLE file = CreateFileW(path, GENERIC_WRITE, 0, NULL, creation, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return last(TROUBLE_CREATE);
    if (!WriteFile(file, bytes, RECORD_BYTES, &written, NULL))
        outcome = last(TROUBLE_WRITE);
    else if (written != RECORD_BYTES)
        outcome = (struct outcome){TROUBLE_WRITE, ERROR_DISK_FULL};
    else if (!FlushFileBuffers(file))
        outcome = last(TROUBLE_FLUSH);
    CloseHandle(file);
    return outcome;
}

static struct outcome finish(const struct place *place)
{
    if (MoveFileExW(place->temporary, place->final, MOVEFILE_WRITE_THROUGH))
        return (struct outcome){NO_TROUBLE, 0};
    struct outcome outcome = last(TROUBLE_RENAME);
    /* One that somebody has deleted and somebody holds yet cannot be renamed, and has no attributes any more. A disk
     * that does not answer has neither: then the file is there all the same, under the name that it has. */
    if (GetFileAttributesW(place->temporary) == INVALID_FILE_ATTRIBUTES) {
        DWORD error = GetLastError();
        if (error == ERROR_FILE_NOT_FOUND || error == ERROR_ACCESS_DENIED || error == ERROR_DELETE_PENDING)
            outcome.trouble = TROUBLE_GONE;
    }
    return outcome;
}

/* Another one with each call: a name that was just deleted is not free while a scanner holds the file. The sequence
 * makes it this process's only one; 100 ns and the RID, the only one at all. */
static void new_place(struct place *place, const WCHAR *folder, u64 filetime, u32 rid)
{
    u16 name[RECORD_NAME_UNITS];
    record_name(name, filetime, rid, (u32)InterlockedIncrement(&sequence));
    path_build(place->temporary, folder, name, RECORD_NAME_UNITS, TEMPORARY);
    path_build(place->final, folder, name, RECORD_NAME_UNITS, FINAL);
}

/* `why` not into a new file; that too when there is no slot. Each slot is looked at once and a few are written to: what
 * it takes is bounded, and nobody is waited for. */
static struct outcome fill_slot(struct place *place, const WCHAR *folder, const u8 *record, u64 filetime, u32 rid,
                                struct outcome why)
{
    int looked_at = 0;
    for (int tries = 0; tries < TRIES; tries++) {
        new_place(place, folder, filetime, rid);
        if (!slots_take(folder, &looked_at, place->temporary))
            break;
        why = fill(place->temporary, OPEN_EXISTING, record);
        /* A disk that cannot flush is slow to say so; the record may be on it nevertheless, and stays. */
        if (why.trouble == NO_TROUBLE || why.trouble == TROUBLE_FLUSH)
            break;
        DeleteFileW(place->temporary);
        if (why.error != ERROR_SHARING_VIOLATION && why.error != ERROR_ACCESS_DENIED)
            break; /* not somebody who holds that one: the disk, which may need the others yet */
    }
    return why;
}

static struct stored write_once(const WCHAR *folder, const u8 record[RECORD_BYTES], u64 filetime, u32 rid)
{
    struct stored stored = {{NO_TROUBLE, 0}, {NO_TROUBLE, 0}, {NO_TROUBLE, 0}, 0};
    struct place place;
    new_place(&place, folder, filetime, rid);
    stored.outcome = fill(place.temporary, CREATE_NEW, record);
    if (stored.outcome.trouble != NO_TROUBLE) {
        stored.detour = stored.outcome;
        stored.slots_changed = 1;
        if (stored.outcome.trouble != TROUBLE_CREATE)
            DeleteFileW(place.temporary);
        stored.outcome = fill_slot(&place, folder, record, filetime, rid, stored.detour);
        if (stored.outcome.trouble != NO_TROUBLE)
            return stored;
    }
    stored.unnamed = finish(&place);
    if (stored.unnamed.trouble == TROUBLE_GONE) {
        stored.outcome = stored.unnamed;
        stored.unnamed = (struct outcome){NO_TROUBLE, 0};
    }
    if (stored.detour.trouble == NO_TROUBLE)
        stored.slots_changed = slots_refill(folder);
    return stored;
}

/* The source takes a whole record under its temporary name too when it is so old, in case we had died: then it has it. */
static int source_may_have(u64 filetime)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    return ((u64)now.dwHighDateTime << 32 | now.dwLowDateTime) >= filetime + TAKEN_AFTER;
}

struct stored store_write(const WCHAR *folder, const u8 record[RECORD_BYTES], u64 filetime, u32 rid)
{
    struct stored stored = write_once(folder, record, filetime, rid);
    if (stored.outcome.trouble == TROUBLE_GONE && !source_may_have(filetime)) {
        int slots_changed = stored.slots_changed;
        stored = write_once(folder, record, filetime, rid);
        stored.slots_changed |= slots_changed;
    }
    if (stored.outcome.trouble == TROUBLE_GONE && source_may_have(filetime))
        stored.outcome = (struct outcome){NO_TROUBLE, 0};
    return stored;
}

struct outcome store_probe(const WCHAR *folder)
{
    static const u8 nothing[RECORD_BYTES];
    struct place place;
    path_build(place.temporary, folder, NULL, 0, L"probe.tmp");
    path_build(place.final, folder, NULL, 0, L"probe.old");
    DeleteFileW(place.final);
    struct outcome outcome;
    int tries = 0;
    do { /* the source takes what is no record out of the folder, also in this moment */
        outcome = fill(place.temporary, CREATE_ALWAYS, nothing);
        if (outcome.trouble == NO_TROUBLE)
            outcome = finish(&place);
    } while (outcome.trouble == TROUBLE_GONE && ++tries < TRIES);
    DeleteFileW(outcome.trouble == NO_TROUBLE ? place.final : place.temporary);
    return outcome;
}

struct outcome store_probe_slot(const WCHAR *folder, struct outcome full)
{
    static const u8 nothing[RECORD_BYTES];
    WCHAR slot[PATH_UNITS];
    struct outcome outcome = full;
    int looked_at = 0;
    while (outcome.trouble != NO_TROUBLE && slots_find(folder, &looked_at, slot))
        outcome = fill(slot, OPEN_EXISTING, nothing);
    return outcome;
}

int store_full(struct outcome outcome)
{
    return outcome.trouble != NO_TROUBLE &&
           (outcome.error == ERROR_DISK_FULL || outcome.error == ERROR_HANDLE_DISK_FULL);
}
