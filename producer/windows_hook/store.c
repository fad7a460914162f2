#include "store.h"

#include "path.h"
#include "slots.h"

#define TEMPORARY L".new"
#define FINAL L".record"
enum { NAME_ROUNDS = 64 };

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

static int taken(struct outcome outcome)
{
    return outcome.error == ERROR_FILE_EXISTS || outcome.error == ERROR_ALREADY_EXISTS;
}

/* Another name each time, for both paths or the final one. One can be taken already only when the clock was set back over
 * a restart. */
static void next_name(WCHAR *temporary, WCHAR *final, const WCHAR *folder, u64 filetime, u32 rid)
{
    u16 name[RECORD_NAME_UNITS];
    record_name(name, filetime, rid, (u32)InterlockedIncrement(&sequence));
    if (temporary)
        path_build(temporary, folder, name, RECORD_NAME_UNITS, TEMPORARY);
    path_build(final, folder, name, RECORD_NAME_UNITS, FINAL);
}

struct stored store_write(const WCHAR *folder, const u8 record[RECORD_BYTES], u64 filetime, u32 rid)
{
    struct stored stored = {{NO_TROUBLE, 0}, {NO_TROUBLE, 0}, {NO_TROUBLE, 0}};
    WCHAR temporary[PATH_UNITS], final[PATH_UNITS];
    int rounds = NAME_ROUNDS;
    do {
        next_name(temporary, final, folder, filetime, rid);
        stored.outcome = fill(temporary, CREATE_NEW, record);
    } while (stored.outcome.trouble == TROUBLE_CREATE && taken(stored.outcome) && --rounds);
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
    while (taken(stored.unnamed = finish(temporary, final)) && --rounds)
        next_name(NULL, final, folder, filetime, rid);
    if (stored.detour.trouble == NO_TROUBLE)
        slots_refill(folder);
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
