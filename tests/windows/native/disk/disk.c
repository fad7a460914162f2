/* Windows' calls on files, each answered by Python with an error code; 0 is success. */
#include <windows.h>

#include "store.h"

DWORD (*disk_open)(const WCHAR *path, DWORD creation);
DWORD (*disk_write)(DWORD handle);
DWORD (*disk_flush)(void);
DWORD (*disk_close)(DWORD handle);
DWORD (*disk_delete)(const WCHAR *path);
DWORD (*disk_move)(const WCHAR *from, const WCHAR *to, DWORD flags);
DWORD (*disk_look)(const WCHAR *path);
uint64_t disk_time;

static DWORD error, handles;

static BOOL good(DWORD code)
{
    error = code;
    return !code;
}

HANDLE CreateFileW(const WCHAR *path, DWORD access, DWORD share, void *security, DWORD creation, DWORD flags, HANDLE template)
{
    (void)access, (void)share, (void)security, (void)flags, (void)template;
    return good(disk_open(path, creation)) ? (HANDLE)(intptr_t)++handles : INVALID_HANDLE_VALUE;
}

BOOL WriteFile(HANDLE file, const void *bytes, DWORD length, DWORD *written, void *overlapped)
{
    (void)bytes, (void)overlapped;
    *written = length;
    return good(disk_write((DWORD)(intptr_t)file));
}

BOOL FlushFileBuffers(HANDLE file)
{
    (void)file;
    return good(disk_flush());
}

BOOL CloseHandle(HANDLE file)
{
    return good(disk_close((DWORD)(intptr_t)file));
}

BOOL DeleteFileW(const WCHAR *path)
{
    return good(disk_delete(path));
}

BOOL MoveFileExW(const WCHAR *from, const WCHAR *to, DWORD flags)
{
    return good(disk_move(from, to, flags));
}

BOOL CreateDirectoryW(const WCHAR *path, void *security)
{
    (void)path, (void)security;
    return 1;
}

DWORD GetFileAttributesW(const WCHAR *path)
{
    return good(disk_look(path)) ? FILE_ATTRIBUTE_NORMAL : INVALID_FILE_ATTRIBUTES;
}

DWORD GetLastError(void)
{
    return error;
}

void GetSystemTimePreciseAsFileTime(FILETIME *now)
{
    now->dwLowDateTime = (DWORD)disk_time;
    now->dwHighDateTime = (DWORD)(disk_time >> 32);
}
