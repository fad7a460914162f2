/* In the place of Windows' header: what the files of the hook that write records use of it. Python is the disk. */
#ifndef WINDOWS_H
#define WINDOWS_H

#include <stdint.h>

typedef uint16_t WCHAR;
typedef uint32_t DWORD;
typedef int32_t LONG;
typedef int BOOL;
typedef void *HANDLE;
typedef int SRWLOCK;
typedef struct {
    DWORD dwLowDateTime, dwHighDateTime;
} FILETIME;

#define INVALID_HANDLE_VALUE ((HANDLE)(intptr_t)-1)
#define INVALID_FILE_ATTRIBUTES 0xFFFFFFFFu
#define SRWLOCK_INIT 0

enum { GENERIC_WRITE = 0x40000000, FILE_ATTRIBUTE_NORMAL = 0x80, MOVEFILE_WRITE_THROUGH = 8 };
enum { CREATE_NEW = 1, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS };
enum {
    ERROR_FILE_NOT_FOUND = 2,
    ERROR_PATH_NOT_FOUND = 3,
    ERROR_ACCESS_DENIED = 5,
    ERROR_WRITE_PROTECT = 19,
    ERROR_SHARING_VIOLATION = 32,
    ERROR_HANDLE_DISK_FULL = 39,
    ERROR_DISK_FULL = 112,
    ERROR_ALREADY_EXISTS = 183,
    ERROR_DELETE_PENDING = 303,
};

/* One thread. */
#define AcquireSRWLockExclusive(lock) ((void)*(lock))
#define ReleaseSRWLockExclusive(lock) ((void)*(lock))
#define TryAcquireSRWLockExclusive(lock) (!*(lock))
#define InterlockedExchange(target, value) __atomic_exchange_n(target, value, __ATOMIC_SEQ_CST)
#define InterlockedIncrement(target) __atomic_add_fetch(target, 1, __ATOMIC_SEQ_CST)

HANDLE CreateFileW(const WCHAR *path, DWORD access, DWORD share, void *security, DWORD creation, DWORD flags, HANDLE template);
BOOL WriteFile(HANDLE file, const void *bytes, DWORD length, DWORD *written, void *overlapped);
BOOL FlushFileBuffers(HANDLE file);
BOOL CloseHandle(HANDLE file);
BOOL DeleteFileW(const WCHAR *path);
BOOL MoveFileExW(const WCHAR *from, const WCHAR *to, DWORD flags);
BOOL CreateDirectoryW(const WCHAR *path, void *security);
DWORD GetFileAttributesW(const WCHAR *path);
DWORD GetLastError(void);
void GetSystemTimePreciseAsFileTime(FILETIME *now);

#endif
