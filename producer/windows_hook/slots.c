#include "slots.h"

#include "bytes.h"

static SRWLOCK lock = SRWLOCK_INIT;
static WCHAR where[FOLDER_UNITS]; /* the folder that `there` tells of */
static u8 there[SLOTS];
static volatile int left;
static volatile LONG moved;
static int refill_next;

static void slot_path(WCHAR path[PATH_UNITS], const WCHAR *folder, int slot)
{
    static const WCHAR PLACE[] = L"slots\\000.slot";
    WCHAR name[sizeof PLACE / sizeof *PLACE];
    bytes_copy(name, PLACE, sizeof PLACE);
    name[6] = (WCHAR)('0' + slot / 100);
    name[7] = (WCHAR)('0' + slot / 10 % 10);
    name[8] = (WCHAR)('0' + slot % 10);
    path_build(path, folder, NULL, 0, name);
}

/* Bytes that are written are bytes that the disk has promised: a size alone would be sparse on some file systems.
 * Returns 0, or Windows' code. */
static u32 make(const WCHAR *folder, int slot)
{
    static const u8 nothing[RECORD_BYTES];
    WCHAR path[PATH_UNITS];
    DWORD written = 0;
    slot_path(path, folder, slot);
    HANDLE file = CreateFileW(path, GENERIC_WRITE, 0, NULL, OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return GetLastError();
    u32 error = WriteFile(file, nothing, RECORD_BYTES, &written, NULL) ? 0 : GetLastError();
    if (!error && written != RECORD_BYTES)
        error = ERROR_DISK_FULL;
    CloseHandle(file);
    if (error)
        DeleteFileW(path);
    there[slot] = !error;
    left += !error;
    return error;
}

static void make_place(const WCHAR *folder)
{
    WCHAR path[PATH_UNITS];
    path_build(path, folder, NULL, 0, L"slots");
    CreateDirectoryW(path, NULL);
}

static void look_at(const WCHAR *folder)
{
    if (bytes_equal(where, folder, sizeof where))
        return;
    bytes_copy(where, folder, sizeof where);
    bytes_wipe(there, sizeof there);
    left = 0;
    InterlockedExchange(&moved, 1);
}

u32 slots_prepare(const WCHAR *folder)
{
    u32 error = 0;
    make_place(folder);
    for (int slot = 0; slot < SLOTS; slot++) {
        /* For each anew: a change that needs a slot meanwhile waits for one, not for all. */
        AcquireSRWLockExclusive(&lock);
        look_at(folder);
        if (!slot)
            InterlockedExchange(&moved, 0);
        if (!there[slot]) {
            u32 failed = make(folder, slot);
            error = failed ? failed : error;
        }
        ReleaseSRWLockExclusive(&lock);
    }
    return error;
}

int slots_find(const WCHAR *folder, int *looked_at, WCHAR path[PATH_UNITS])
{
    int found = 0;
    AcquireSRWLockExclusive(&lock);
    look_at(folder);
    while (!found && *looked_at < SLOTS) {
        int slot = (*looked_at)++;
        found = there[slot];
        if (found)
            slot_path(path, folder, slot);
    }
    ReleaseSRWLockExclusive(&lock);
    return found;
}

int slots_take(const WCHAR *folder, int *looked_at, const WCHAR *path)
{
    WCHAR slot_at[PATH_UNITS];
    int got = 0;
    AcquireSRWLockExclusive(&lock);
    look_at(folder);
    while (!got && *looked_at < SLOTS) {
        int slot = SLOTS - 1 - (*looked_at)++;
        if (!there[slot])
            continue;
        slot_path(slot_at, folder, slot);
        got = MoveFileExW(slot_at, path, 0);
        DWORD error = got ? 0 : GetLastError();
        if (!got && error != ERROR_FILE_NOT_FOUND && error != ERROR_SHARING_VIOLATION && error != ERROR_ACCESS_DENIED)
            break; /* not this slot but the folder or the disk is at fault, and a disk may be slow to say so each time */
        if (got || error == ERROR_FILE_NOT_FOUND) {
            there[slot] = 0;
            left--;
        }
    }
    ReleaseSRWLockExclusive(&lock);
    return got;
}

int slots_refill(const WCHAR *folder)
{
    int made = 0;
    if (!TryAcquireSRWLockExclusive(&lock))
        return 0;
    look_at(folder);
    if (!left)
        make_place(folder);
    /* In turn, or one that another program holds would keep all others from coming back. */
    for (int i = 0; i < SLOTS && left < SLOTS; i++) {
        int slot = refill_next;
        refill_next = (slot + 1) % SLOTS;
        if (!there[slot]) {
            made = !make(folder, slot);
            break;
        }
    }
    ReleaseSRWLockExclusive(&lock);
    return made;
}

int slots_moved(void)
{
    return InterlockedExchange(&moved, 0) != 0;
}

int slots_left(void)
{
    return left;
}
