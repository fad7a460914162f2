/* Calls the DLL's exports as LSASS does. Commands on stdin, one a line; each is answered with one line that begins with
 * the command's name. Texts are UTF-16LE as hexadecimal; "-" is a null UNICODE_STRING, "@" one with a null buffer.
 *
 *   initialize                          set binary|text NAME HEX     unset NAME      clear
 *   change RID NAME PASSWORD            filter NAME PASSWORD         status VALUE    unload
 *   many THREADS EACH FIRST_RID         a line "made RID N" for every call that has returned
 *   hostile name|password KIND RID      fuzz SEED COUNT              traces good|torn|kept RID
 *   hold SHARE PATH                     opens a file to read, with these share modes  release    and closes them all
 *   stack RID                           what one call has left on its thread's stack, as hexadecimal */
#define WIN32_LEAN_AND_MEAN
#define WIN32_NO_STATUS
#include <windows.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS L"SOFTWARE\\passrelay\\hook"

typedef struct {
    USHORT length, most;
    WCHAR *buffer;
} STRING16;

typedef BOOLEAN(NTAPI *initialize_call)(void);
typedef LONG(NTAPI *notify_call)(STRING16 *, ULONG, STRING16 *);
typedef BOOLEAN(NTAPI *filter_call)(STRING16 *, STRING16 *, STRING16 *, BOOLEAN);

static initialize_call initialize;
static notify_call notify;
static filter_call filter;

enum { MOST_UNITS = 40000 };

static void say(const char *text)
{
    DWORD written;
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), text, (DWORD)strlen(text), &written, NULL);
}

/* Password number `n` of an account: "Kanarie7-<rid>-<n>", kept out of this program's own bytes. */
static size_t canary(WCHAR *text, ULONG rid, ULONG n)
{
    static const BYTE HIDDEN[] = {'K' ^ 0x5A, 'a' ^ 0x5A, 'n' ^ 0x5A, 'a' ^ 0x5A, 'r' ^ 0x5A, 'i' ^ 0x5A, 'e' ^ 0x5A, '7' ^ 0x5A};
    volatile BYTE mask = 0x5A;
    char rest[32];
    size_t units = 0;
    for (; units < sizeof HIDDEN; units++)
        text[units] = HIDDEN[units] ^ mask;
    snprintf(rest, sizeof rest, "-%lu-%lu", (unsigned long)rid, (unsigned long)n);
    for (const char *at = rest; *at; at++)
        text[units++] = (WCHAR)*at;
    return units;
}

static int nibble(char digit)
{
    return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10;
}

static size_t unhex(const char *hex, BYTE *bytes)
{
    size_t length = 0;
    for (; hex[0] && hex[1]; hex += 2)
        bytes[length++] = (BYTE)(nibble(hex[0]) << 4 | nibble(hex[1]));
    return length;
}

static STRING16 *text_of(const char *hex, STRING16 *text, WCHAR *buffer)
{
    if (!strcmp(hex, "-"))
        return NULL;
    text->buffer = strcmp(hex, "@") ? buffer : NULL;
    text->length = text->buffer ? (USHORT)unhex(hex, (BYTE *)buffer) : 0;
    text->most = text->length;
    return text;
}

static void wide(const char *name, WCHAR *out)
{
    while ((*out++ = (WCHAR)*name++))
        ;
}

/* settings */

static void set(const char *type, const char *name, const char *hex)
{
    static BYTE value[2048];
    WCHAR wide_name[64];
    HKEY key;
    size_t length = unhex(hex, value);
    wide(name, wide_name);
    RegCreateKeyExW(HKEY_LOCAL_MACHINE, SETTINGS, 0, NULL, 0, KEY_ALL_ACCESS, NULL, &key, NULL);
    if (!strcmp(type, "text"))
        value[length++] = 0, value[length++] = 0;
    LSTATUS failed = RegSetValueExW(key, wide_name, 0, strcmp(type, "text") ? REG_BINARY : REG_SZ, value, (DWORD)length);
    RegCloseKey(key);
    say(failed ? "set failed\n" : "set\n");
}

static void unset(const char *name)
{
    WCHAR wide_name[64];
    wide(name, wide_name);
    RegDeleteKeyValueW(HKEY_LOCAL_MACHINE, SETTINGS, wide_name);
    say("unset\n");
}

static void status(const char *name)
{
    WCHAR wide_name[64], text[512] = {0};
    char line[600];
    DWORD type = 0, length = sizeof text;
    DWORD number;
    wide(name, wide_name);
    LSTATUS failed = RegGetValueW(HKEY_LOCAL_MACHINE, SETTINGS L"\\status", wide_name, RRF_RT_ANY, &type, text, &length);
    memcpy(&number, text, sizeof number);
    if (failed)
        snprintf(line, sizeof line, "status\n");
    else if (type == REG_DWORD)
        snprintf(line, sizeof line, "status %lu\n", (unsigned long)number);
    else
        snprintf(line, sizeof line, "status %ls\n", text);
    say(line);
}

/* hold: what a scanner or a backup does */

static HANDLE held[512];
static int held_count;

static void hold(DWORD share, const char *hex)
{
    WCHAR path[300] = {0};
    unhex(hex, (BYTE *)path);
    HANDLE file = CreateFileW(path, GENERIC_READ, share, NULL, OPEN_EXISTING, 0, NULL);
    if (file != INVALID_HANDLE_VALUE && held_count < 512)
        held[held_count++] = file;
    say(file == INVALID_HANDLE_VALUE ? "hold failed\n" : "hold\n");
}

static void release_all(void)
{
    while (held_count)
        CloseHandle(held[--held_count]);
    say("release\n");
}

/* many */

struct load {
    ULONG rid, each;
    LONGLONG *ticks;
};

static DWORD WINAPI one_thread(void *argument)
{
    struct load *load = argument;
    WCHAR name_text[] = L"user", password_text[64];
    char line[64];
    for (ULONG n = 0; n < load->each; n++) {
        LARGE_INTEGER before, after;
        size_t units = canary(password_text, load->rid, n);
        STRING16 name = {8, 8, name_text}, password = {(USHORT)(2 * units), (USHORT)(2 * units), password_text};
        QueryPerformanceCounter(&before);
        notify(&name, load->rid, &password);
        QueryPerformanceCounter(&after);
        load->ticks[n] = after.QuadPart - before.QuadPart;
        snprintf(line, sizeof line, "made %lu %lu\n", (unsigned long)load->rid, (unsigned long)n);
        say(line);
    }
    SecureZeroMemory(password_text, sizeof password_text);
    return 0;
}

static int compare(const void *one, const void *other)
{
    LONGLONG left = *(const LONGLONG *)one, right = *(const LONGLONG *)other;
    return (left > right) - (left < right);
}

static void many(ULONG threads, ULONG each, ULONG first_rid)
{
    HANDLE handles[64];
    struct load loads[64];
    LONGLONG *ticks = calloc(threads * each, sizeof *ticks);
    LARGE_INTEGER frequency, begin, end;
    char line[160];
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&begin);
    for (ULONG i = 0; i < threads; i++) {
        loads[i] = (struct load){first_rid + i, each, ticks + i * each};
        handles[i] = CreateThread(NULL, 0, one_thread, &loads[i], 0, NULL);
    }
    WaitForMultipleObjects(threads, handles, TRUE, INFINITE);
    QueryPerformanceCounter(&end);
    for (ULONG i = 0; i < threads; i++)
        CloseHandle(handles[i]);
    ULONG count = threads * each;
    qsort(ticks, count, sizeof *ticks, compare);
    double micro = 1e6 / (double)frequency.QuadPart;
    snprintf(line, sizeof line, "many p50_us %.0f p99_us %.0f max_us %.0f per_second %.0f\n", (double)ticks[count / 2] * micro,
             (double)ticks[count * 99 / 100] * micro, (double)ticks[count - 1] * micro,
             count * (double)frequency.QuadPart / (double)(end.QuadPart - begin.QuadPart));
    free(ticks);
    say(line);
}

/* hostile */

static void *page(DWORD protection)
{
    BYTE *pages = VirtualAlloc(NULL, 8192, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    DWORD old;
    for (int i = 0; i < 4096; i += 2)
        pages[i] = 'x';
    VirtualProtect(pages + 4096, 4096, protection, &old);
    return pages;
}

/* A string that is wrong in the named way; 0 when there is no such way. */
static int wrong(const char *kind, STRING16 **text, STRING16 *space, BYTE **release)
{
    static WCHAR good[MOST_UNITS];
    static BYTE odd[sizeof(STRING16) + 1];
    *release = NULL;
    *space = (STRING16){20, 20, good};
    *text = space;
    for (int i = 0; i < MOST_UNITS; i++)
        good[i] = 'x';
    if (!strcmp(kind, "good"))
        return 1;
    if (!strcmp(kind, "null"))
        *text = NULL;
    else if (!strcmp(kind, "string_low"))
        *text = (STRING16 *)8;
    else if (!strcmp(kind, "string_noncanonical"))
        *text = (STRING16 *)0x8000000000000000ULL;
    else if (!strcmp(kind, "string_odd")) {
        memcpy(odd + 1, space, sizeof *space);
        *text = (STRING16 *)(odd + 1);
    } else if (!strcmp(kind, "string_unmapped")) {
        *text = VirtualAlloc(NULL, 4096, MEM_RESERVE, PAGE_NOACCESS);
    } else if (!strcmp(kind, "string_torn")) {
        *release = page(PAGE_NOACCESS);
        *text = (STRING16 *)(*release + 4096 - 8);
    } else if (!strcmp(kind, "buffer_null"))
        space->buffer = NULL;
    else if (!strcmp(kind, "buffer_low"))
        space->buffer = (WCHAR *)4;
    else if (!strcmp(kind, "buffer_kernel"))
        space->buffer = (WCHAR *)0xFFFFF80000000000ULL;
    else if (!strcmp(kind, "buffer_noncanonical"))
        space->buffer = (WCHAR *)0x00FF800000000000ULL;
    else if (!strcmp(kind, "buffer_odd"))
        space->buffer = (WCHAR *)((BYTE *)good + 1);
    else if (!strcmp(kind, "buffer_torn") || !strcmp(kind, "buffer_guard")) {
        *release = page(strcmp(kind, "buffer_torn") ? PAGE_READWRITE | PAGE_GUARD : PAGE_NOACCESS);
        space->buffer = (WCHAR *)(*release + 4096 - 8);
    } else if (!strcmp(kind, "buffer_freed")) {
        space->buffer = (WCHAR *)page(PAGE_READWRITE);
        VirtualFree(space->buffer, 0, MEM_RELEASE);
    } else if (!strcmp(kind, "length_zero"))
        space->length = 0;
    else if (!strcmp(kind, "length_one"))
        space->length = 1;
    else if (!strcmp(kind, "length_odd"))
        space->length = 21;
    else if (!strcmp(kind, "length_512"))
        space->length = 512;
    else if (!strcmp(kind, "length_514"))
        space->length = 514;
    else if (!strcmp(kind, "length_most"))
        space->length = 65535;
    else if (!strcmp(kind, "most_zero"))
        space->most = 0;
    else
        return 0;
    return 1;
}

static void hostile(const char *which, const char *kind, ULONG rid)
{
    STRING16 *bad, space;
    BYTE *release;
    WCHAR good_text[] = L"good-one";
    STRING16 good = {16, 16, good_text};
    char line[80];
    if (!wrong(kind, &bad, &space, &release)) {
        say("hostile unknown\n");
        return;
    }
    int password = !strcmp(which, "password");
    LONG result = notify(password ? &good : bad, rid, password ? bad : &good);
    BOOLEAN allowed = filter(bad, bad, bad, TRUE);
    if (release)
        VirtualFree(release, 0, MEM_RELEASE);
    snprintf(line, sizeof line, "hostile %ld %d\n", (long)result, allowed);
    say(line);
}

static void fuzz(ULONG seed, ULONG count)
{
    static const char *const KINDS[] = {
        "good",        "null",       "string_low",    "string_noncanonical", "string_odd", "string_torn", "buffer_null",
        "buffer_low",  "buffer_odd", "buffer_kernel", "buffer_noncanonical", "buffer_torn", "buffer_guard", "buffer_freed",
        "length_zero", "length_one", "length_odd",    "length_512",          "length_514", "length_most", "most_zero"};
    enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };
    char line[80];
    ULONG state = seed * 2654435761u + 1, wrong_answers = 0;
    for (ULONG i = 0; i < count; i++) {
        STRING16 *strings[2], spaces[2];
        BYTE *releases[2];
        for (int j = 0; j < 2; j++) {
            state = state * 1664525u + 1013904223u;
            wrong(KINDS[(state >> 8) % KIND_COUNT], &strings[j], &spaces[j], &releases[j]);
            state = state * 1664525u + 1013904223u;
            /* Now and then any length at all, over any kind. */
            if (strings[j] == &spaces[j] && (state >> 8) % 4 == 0)
                spaces[j].length = (USHORT)(state >> 12);
        }
        state = state * 1664525u + 1013904223u;
        if (notify(strings[0], state, strings[1]) || !filter(strings[0], strings[1], strings[1], (BOOLEAN)state))
            wrong_answers++;
        for (int j = 0; j < 2; j++)
            if (releases[j])
                VirtualFree(releases[j], 0, MEM_RELEASE);
    }
    snprintf(line, sizeof line, "fuzz %lu %lu\n", (unsigned long)count, (unsigned long)wrong_answers);
    say(line);
}

/* traces: is the password anywhere in this process after the call? */

static ULONG find_canary(void)
{
    WCHAR needle[32];
    MEMORY_BASIC_INFORMATION info;
    ULONG found = 0;
    canary(needle, 0, 0); /* its first 8 units are what is looked for; this copy is not counted */
    for (BYTE *at = NULL; VirtualQuery(at, &info, sizeof info); at = (BYTE *)info.BaseAddress + info.RegionSize) {
        DWORD writable = PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
        if (info.State != MEM_COMMIT || !(info.Protect & writable) || info.Protect & PAGE_GUARD)
            continue;
        BYTE *end = (BYTE *)info.BaseAddress + info.RegionSize;
        for (BYTE *byte = info.BaseAddress; byte + 16 <= end; byte++)
            if (byte[0] == 'K' && byte != (BYTE *)needle && !memcmp(byte, needle, 16))
                found++;
    }
    SecureZeroMemory(needle, sizeof needle);
    return found;
}

static DWORD WINAPI call_once(void *argument)
{
    struct load *load = argument;
    BYTE *pages = page(PAGE_NOACCESS);
    WCHAR name_text[] = L"user";
    STRING16 name = {8, 8, name_text}, password;
    WCHAR *text = (WCHAR *)(pages + 4096 - 64);
    size_t units = canary(text, load->rid, 0);
    /* torn: half of it can be read, the rest is another page */
    password = (STRING16){(USHORT)(load->each ? 256 : 2 * units), 256, text};
    notify(&name, load->rid, &password);
    if (!load->ticks) { /* "kept" leaves it, to show that it would be found */
        SecureZeroMemory(pages, 4096);
        VirtualFree(pages, 0, MEM_RELEASE);
    }
    load->each = find_canary();
    return 0;
}

static void traces(const char *how, ULONG rid)
{
    LONGLONG kept;
    struct load load = {rid, !strcmp(how, "torn"), strcmp(how, "kept") ? NULL : &kept};
    char line[80];
    /* The thread that made the call is still there when its stack is searched. */
    HANDLE thread = CreateThread(NULL, 0, call_once, &load, 0, NULL);
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
    snprintf(line, sizeof line, "traces %lu\n", (unsigned long)load.each);
    say(line);
}

/* stack */

enum { STACK_BYTES = 24576 };
static BYTE left_on_stack[STACK_BYTES];

static DWORD WINAPI call_and_copy(void *argument)
{
    WCHAR name_text[] = L"user", text[64];
    ULONG rid = *(ULONG *)argument;
    USHORT length = (USHORT)(2 * canary(text, rid, 0));
    STRING16 name = {8, 8, name_text}, password = {length, length, text};
    notify(&name, rid, &password);
    /* No call before this is done: it would write over what the last one left. Downwards, as a stack grows. */
    volatile const BYTE *end = __builtin_frame_address(0);
    for (int i = 1; i <= STACK_BYTES; i++)
        left_on_stack[STACK_BYTES - i] = end[-i];
    SecureZeroMemory(text, sizeof text);
    return 0;
}

static void stack(ULONG rid)
{
    static char line[2 * STACK_BYTES + 16] = "stack ";
    char *at = line + 6;
    HANDLE thread = CreateThread(NULL, 0, call_and_copy, &rid, 0, NULL);
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
    for (int i = 0; i < STACK_BYTES; i++) {
        *at++ = "0123456789abcdef"[left_on_stack[i] >> 4];
        *at++ = "0123456789abcdef"[left_on_stack[i] & 15];
    }
    *at++ = '\n';
    *at = 0;
    say(line);
}

int main(int count, char **arguments)
{
    static char line[200000];
    static WCHAR name_text[MOST_UNITS], password_text[MOST_UNITS];
    if (count != 2)
        return 2;
    say("begun\n");
    HMODULE library = LoadLibraryA(arguments[1]);
    if (!library) {
        printf("the DLL cannot be loaded: %lu\n", (unsigned long)GetLastError());
        return 1;
    }
    initialize = (initialize_call)(void *)GetProcAddress(library, "InitializeChangeNotify");
    notify = (notify_call)(void *)GetProcAddress(library, "PasswordChangeNotify");
    filter = (filter_call)(void *)GetProcAddress(library, "PasswordFilter");
    if (!initialize || !notify || !filter)
        return 1;
    say("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        char *word[5] = {0}, *next = line;
        for (int i = 0; i < 5 && (word[i] = strtok(next, " \r\n")); i++)
            next = NULL;
        char answer[80];
        STRING16 name, password;
        if (!word[0])
            continue;
        if (!strcmp(word[0], "initialize")) {
            snprintf(answer, sizeof answer, "initialize %d\n", initialize());
            say(answer);
        } else if (!strcmp(word[0], "set")) {
            set(word[1], word[2], word[3] ? word[3] : "");
        } else if (!strcmp(word[0], "unset")) {
            unset(word[1]);
        } else if (!strcmp(word[0], "clear")) {
            RegDeleteTreeW(HKEY_LOCAL_MACHINE, SETTINGS);
            say("clear\n");
        } else if (!strcmp(word[0], "unload")) {
            for (int i = 0; i < 3; i++)
                FreeLibrary(library);
            say(GetModuleHandleW(L"passrelay-hook.dll") ? "unload kept\n" : "unload gone\n");
        } else if (!strcmp(word[0], "status")) {
            status(word[1]);
        } else if (!strcmp(word[0], "hold")) {
            hold(strtoul(word[1], NULL, 10), word[2]);
        } else if (!strcmp(word[0], "release")) {
            release_all();
        } else if (!strcmp(word[0], "change")) {
            LONG result = notify(text_of(word[2], &name, name_text), strtoul(word[1], NULL, 10),
                                 text_of(word[3], &password, password_text));
            snprintf(answer, sizeof answer, "change %ld\n", (long)result);
            say(answer);
        } else if (!strcmp(word[0], "filter")) {
            STRING16 *account = text_of(word[1], &name, name_text);
            snprintf(answer, sizeof answer, "filter %d\n",
                     filter(account, account, text_of(word[2], &password, password_text), FALSE));
            say(answer);
        } else if (!strcmp(word[0], "many")) {
            many(strtoul(word[1], NULL, 10), strtoul(word[2], NULL, 10), strtoul(word[3], NULL, 10));
        } else if (!strcmp(word[0], "hostile")) {
            hostile(word[1], word[2], strtoul(word[3], NULL, 10));
        } else if (!strcmp(word[0], "fuzz")) {
            fuzz(strtoul(word[1], NULL, 10), strtoul(word[2], NULL, 10));
        } else if (!strcmp(word[0], "traces")) {
            traces(word[1], strtoul(word[2], NULL, 10));
        } else if (!strcmp(word[0], "stack")) {
            stack(strtoul(word[1], NULL, 10));
        } else {
            say("unknown\n");
        }
    }
    return 0;
}
