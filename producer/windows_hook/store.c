#include "store.h"

#include "path.h"
#include "slots.h"

#define TEMPORARY L".new"
#define FINAL L".record"

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

static struct outcome finish(const WCHAR *temporary, const WCHAR *final)
{
    if (MoveFileExW(temporary, final, MOVEFILE_WRITE_THROUGH))
        return (struct outcome){NO_TROUBLE, 0};
    /* The source takes a whole record under its temporary name too, in case we die right here: then it has it. */
    if (GetLastError() == ERROR_FILE_NOT_FOUND)
        return (struct outcome){NO_TROUBLE, 0};
    return last(TROUBLE_RENAME);
}

struct stored store_write(const WCHAR *folder, const u8 record[RECORD_BYTES], u64 filetime, u32 rid)
{
    struct stored stored = {{NO_TROUBLE, 0}, {NO_TROUBLE, 0}, {NO_TROUBLE, 0}, 0};
    WCHAR temporary[PATH_UNITS], final[PATH_UNITS];
    u16 name[RECORD_NAME_UNITS];
    /* The sequence makes it this process's only one; 100 ns and the RID, the only one at all. */
    record_name(name, filetime, rid, (u32)InterlockedIncrement(&sequence));
    path_build(temporary, folder, name, RECORD_NAME_UNITS, TEMPORARY);
    path_build(final, folder, name, RECORD_NAME_UNITS, FINAL);
    stored.outcome = fill(temporary, CREATE_NEW, record);
    if (stored.outcome.trouble != NO_TROUBLE) {
        stored.detour = stored.outcome;
        if (stored.outcome.trouble != TROUBLE_CREATE)
            DeleteFileW(temporary);
        if (!slots_take(folder, temporary))
            return stored;
        stored.outcome = fill(temporary, OPEN_EXISTING, record);
        if (stored.outcome.trouble != NO_TROUBLE)
            return stored;
    }
    stored.unnamed = finish(temporary, final);
    if (stored.detour.trouble == NO_TROUBLE)
        stored.slot_made = slots_refill(folder);
    return stored;
}

struct outcome store_probe(const WCHAR *folder)
{
    static const u8 nothing[RECORD_BYTES];
    WCHAR temporary[PATH_UNITS], final[PATH_UNITS];
    path_build(temporary, folder, NULL, 0, L"probe.tmp");
    path_build(final, folder, NULL, 0, L"probe.old");
    DeleteFileW(final);
    struct outcome outcome = fill(temporary, CREATE_ALWAYS, nothing);
    if (outcome.trouble == NO_TROUBLE)
        outcome = finish(temporary, final);
    DeleteFileW(outcome.trouble == NO_TROUBLE ? final : temporary);
    return outcome;
}

struct outcome store_probe_slot(const WCHAR *folder, struct outcome full)
{
    static const u8 nothing[RECORD_BYTES];
    WCHAR slot[PATH_UNITS];
    return slots_find(folder, slot) ? fill(slot, OPEN_EXISTING, nothing) : full;
}

int store_full(struct outcome outcome)
{
    return outcome.trouble != NO_TROUBLE &&
           (outcome.error == ERROR_DISK_FULL || outcome.error == ERROR_HANDLE_DISK_FULL);
}
