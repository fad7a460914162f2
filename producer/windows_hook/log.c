#include "log.h"

#include "bytes.h"
#include "messages.h"
#include "settings.h"
#include "slots.h"
#include "version.h"

#define WIDE_(text) L##text
#define WIDE(text) WIDE_(text)

enum { WAITING = 64, STRINGS = 4, NUMBER_UNITS = 11, AGAIN = 100000000 /* 10 s */ };

static const WCHAR *const WORDS[TROUBLES] = {
    [NO_TROUBLE] = L"nothing",
    [TROUBLE_FAULT] = L"an address that LSASS handed over, or the program itself, is at fault",
    [TROUBLE_CRYPTOGRAPHY] = L"Windows' cryptography does not give what RFC 9180 says",
    [TROUBLE_NO_SETTINGS] = L"the registry key HKEY_LOCAL_MACHINE\\SOFTWARE\\passrelay\\hook cannot be opened: install again",
    [TROUBLE_RECIPIENT_KEY] = L"value RecipientKey must be REG_BINARY, 65 bytes, a point of P-256: enroll the recipient key again",
    [TROUBLE_KEY_ID] = L"value RecipientKeyId is not the id of RecipientKey: enroll the recipient key again",
    [TROUBLE_PRODUCER] = L"value Producer must be REG_SZ, the name that this controller is enrolled under",
    [TROUBLE_DOMAIN_SID] = L"value DomainSid must be REG_SZ, as S-1-5-21-1-2-3",
    [TROUBLE_FOLDER_VALUE] = L"value Folder must be REG_SZ, a folder on a local disk with at most 179 characters",
    [TROUBLE_CREATE] = L"a file in the folder that value Folder names could not be created",
    [TROUBLE_WRITE] = L"a file could not be written: is the disk full?",
    [TROUBLE_FLUSH] = L"a file could not be flushed to the disk",
    [TROUBLE_RENAME] = L"a file could not be renamed",
    [TROUBLE_GONE] = L"a new file was gone before it had its final name: does a scanner take files out of that folder?",
    [TROUBLE_SEAL] = L"the password could not be sealed",
    [TROUBLE_LENGTH] = L"the password is longer than 256 characters or ends in half a character",
    [TROUBLE_REFUSED] = L"the self-test at the start had failed",
};

struct message {
    DWORD id;
    WORD type;
    const WCHAR *words; /* at `words_at`; NULL for none */
    int words_at, strings;
    WCHAR number[STRINGS][NUMBER_UNITS];
};

static SRWLOCK lock = SRWLOCK_INIT;
static struct message waiting[WAITING];
static unsigned first, count;
static SRWLOCK sender = SRWLOCK_INIT; /* one at a time */
static SRWLOCK slots_teller = SRWLOCK_INIT;
static PTP_TIMER timer;
static volatile LONG lost, slotted;
static SRWLOCK settings_teller = SRWLOCK_INIT;
static enum trouble settings_trouble; /* it and the id: what was told last */
static char key_id_told[KEY_ID_BYTES];

static void decimal(WCHAR text[NUMBER_UNITS], u32 value)
{
    WCHAR reversed[NUMBER_UNITS];
    int digits = 0;
    do
        reversed[digits++] = (WCHAR)('0' + value % 10);
    while (value /= 10);
    for (int i = 0; i < digits; i++)
        text[i] = reversed[digits - 1 - i];
    text[digits] = 0;
}

static void hexadecimal(WCHAR text[NUMBER_UNITS], u32 value)
{
    text[0] = '0';
    text[1] = 'x';
    for (int i = 0; i < 8; i++)
        text[2 + i] = (WCHAR)"0123456789ABCDEF"[value >> (28 - 4 * i) & 15];
    text[10] = 0;
}

static int hand_over(HANDLE source, const struct message *message)
{
    LPCWSTR strings[STRINGS];
    for (int i = 0; i < message->strings; i++)
        strings[i] = message->words && i == message->words_at ? message->words : message->number[i];
    return ReportEventW(source, message->type, 0, message->id, NULL, (WORD)message->strings, 0, strings, NULL);
}

/* Hands over what waits, oldest first. Returns 0 when the event log service does not take it. */
static int send_all(HANDLE source)
{
    for (;;) {
        struct message message;
        AcquireSRWLockExclusive(&lock);
        unsigned taken = first;
        int some = count > 0;
        if (some)
            bytes_copy(&message, &waiting[taken], sizeof message);
        ReleaseSRWLockExclusive(&lock);
        if (!some)
            return 1;
        if (!hand_over(source, &message))
            return 0;
        AcquireSRWLockExclusive(&lock);
        if (count && first == taken) { /* else it was pushed out meanwhile */
            first = (first + 1) % WAITING;
            count--;
        }
        ReleaseSRWLockExclusive(&lock);
    }
}

static int some_wait(void)
{
    AcquireSRWLockExclusive(&lock);
    int some = count > 0;
    ReleaseSRWLockExclusive(&lock);
    return some;
}

static void send_in(LONGLONG hundred_nanoseconds)
{
    LARGE_INTEGER due = {.QuadPart = -hundred_nanoseconds}; /* negative: from now */
    FILETIME time = {due.LowPart, (DWORD)due.HighPart};
    SetThreadpoolTimer(timer, &time, 0, 0);
}

static VOID CALLBACK send_waiting(PTP_CALLBACK_INSTANCE instance, PVOID context, PTP_TIMER fired)
{
    (void)instance, (void)context, (void)fired;
    int good = 1;
    do {
        /* Never waited for: LSASS's own work runs in these threads. Whoever has it looks again after he gave it back. */
        if (!TryAcquireSRWLockExclusive(&sender))
            return;
        HANDLE source = RegisterEventSourceW(NULL, L"passrelay-hook");
        good = source && send_all(source);
        if (source)
            DeregisterEventSource(source);
        ReleaseSRWLockExclusive(&sender);
    } while (good && some_wait());
    if (!good)
        send_in(AGAIN);
}

void log_open(void)
{
    /* LSASS may unload a DLL that refuses to load, and the timer would run into nothing. */
    HMODULE self;
    if (!timer && GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                                     (LPCWSTR)(const void *)&waiting, &self))
        timer = CreateThreadpoolTimer(send_waiting, NULL, NULL);
}

static void report(const struct message *message)
{
    AcquireSRWLockExclusive(&lock);
    if (count == WAITING) { /* the oldest goes; the counters in later messages tell */
        first = (first + 1) % WAITING;
        count--;
    }
    bytes_copy(&waiting[(first + count++) % WAITING], message, sizeof *message);
    ReleaseSRWLockExclusive(&lock);
    if (timer)
        send_in(0);
}

static HKEY status_key(void)
{
    HKEY parent, key;
    /* Only below a key that is there: one that was made here would be volatile too, and could hold no settings. */
    if (RegOpenKeyExW(HKEY_LOCAL_MACHINE, SETTINGS_KEY, 0, KEY_CREATE_SUB_KEY | KEY_WOW64_64KEY, &parent))
        return NULL;
    LSTATUS failed =
        RegCreateKeyExW(parent, L"status", 0, NULL, REG_OPTION_VOLATILE, KEY_SET_VALUE | KEY_WOW64_64KEY, NULL, &key, NULL);
    RegCloseKey(parent);
    return failed ? NULL : key;
}

static void set_number(HKEY key, LPCWSTR name, u32 value)
{
    RegSetValueExW(key, name, 0, REG_DWORD, (const BYTE *)&value, sizeof value);
}

static void set_text(HKEY key, LPCWSTR name, const WCHAR *text)
{
    DWORD units = 0;
    while (text[units])
        units++;
    RegSetValueExW(key, name, 0, REG_SZ, (const BYTE *)text, (units + 1) * (DWORD)sizeof *text);
}

/* Under settings_teller, and read there: whoever writes last writes what holds then. Returns what settings_read does. */
static struct outcome tell_settings(int refused)
{
    struct settings settings;
    int ever_good;
    struct outcome why = settings_read(&settings, &ever_good);
    WCHAR id[KEY_ID_BYTES + 1] = {0};
    if (!ever_good || refused) /* it seals to none */
        bytes_wipe(settings.identity.key_id, KEY_ID_BYTES);
    for (int i = 0; i < KEY_ID_BYTES; i++)
        id[i] = (WCHAR)settings.identity.key_id[i];
    HKEY key = status_key();
    if (key) {
        set_text(key, L"KeyId", id);
        set_text(key, L"SettingsTrouble", why.trouble == NO_TROUBLE ? L"" : WORDS[why.trouble]);
        RegCloseKey(key);
    }
    settings_trouble = why.trouble;
    bytes_copy(key_id_told, settings.identity.key_id, KEY_ID_BYTES);
    return why;
}

static void set_state(const WCHAR *state, struct outcome why, int refused)
{
    AcquireSRWLockExclusive(&settings_teller);
    tell_settings(refused);
    ReleaseSRWLockExclusive(&settings_teller);
    HKEY key = status_key();
    if (!key)
        return;
    set_text(key, L"State", state);
    set_text(key, L"Version", WIDE(VERSION_TEXT));
    set_text(key, L"Reason", WORDS[why.trouble]);
    set_number(key, L"Error", why.error);
    set_number(key, L"ProcessId", GetCurrentProcessId());
    set_number(key, L"Lost", (u32)lost);
    RegCloseKey(key);
}

static void set_version(WCHAR text[NUMBER_UNITS])
{
    static const WCHAR VERSION[] = WIDE(VERSION_TEXT);
    _Static_assert(sizeof VERSION <= NUMBER_UNITS * sizeof(WCHAR), "the version must fit its field");
    bytes_copy(text, VERSION, sizeof VERSION);
}

void log_loaded(void)
{
    struct message message = {.id = MESSAGE_LOADED, .type = EVENTLOG_INFORMATION_TYPE, .strings = 1};
    set_version(message.number[0]);
    set_state(L"loaded", (struct outcome){NO_TROUBLE, 0}, 0);
    report(&message);
}

void log_refused(struct outcome why)
{
    struct message message = {.id = MESSAGE_REFUSED, .type = EVENTLOG_ERROR_TYPE, .strings = 3};
    set_version(message.number[0]);
    message.words = WORDS[why.trouble];
    message.words_at = 1;
    hexadecimal(message.number[2], why.error);
    set_state(L"refused", why, 1);
    report(&message);
}

void log_lost(u32 rid, struct outcome why)
{
    struct message message = {.id = MESSAGE_LOST, .type = EVENTLOG_ERROR_TYPE, .strings = 4};
    u32 number = (u32)InterlockedIncrement(&lost);
    decimal(message.number[0], rid);
    message.words = WORDS[why.trouble];
    message.words_at = 1;
    hexadecimal(message.number[2], why.error);
    decimal(message.number[3], number);
    HKEY key = status_key();
    if (key) {
        set_number(key, L"Lost", number);
        set_number(key, L"LastLostRid", rid);
        set_text(key, L"LastLostReason", WORDS[why.trouble]);
        RegCloseKey(key);
    }
    report(&message);
}

void log_slot(struct outcome why, int left)
{
    struct message message = {.id = MESSAGE_SLOT, .type = EVENTLOG_WARNING_TYPE, .strings = 3};
    u32 number = (u32)InterlockedIncrement(&slotted);
    message.words = WORDS[why.trouble];
    message.words_at = 0;
    hexadecimal(message.number[1], why.error);
    decimal(message.number[2], (u32)left);
    HKEY key = status_key();
    if (key) {
        set_number(key, L"Slotted", number);
        RegCloseKey(key);
    }
    report(&message);
}

void log_short_of_slots(struct outcome why, int left)
{
    struct message message = {.id = MESSAGE_SHORT_OF_SLOTS, .type = EVENTLOG_WARNING_TYPE, .strings = 3};
    message.words = WORDS[why.trouble];
    message.words_at = 0;
    hexadecimal(message.number[1], why.error);
    decimal(message.number[2], (u32)left);
    report(&message);
}

void log_slots_left(void)
{
    /* Read under the lock: whoever writes last writes what holds then. */
    AcquireSRWLockExclusive(&slots_teller);
    HKEY key = status_key();
    if (key) {
        set_number(key, L"SlotsLeft", (u32)slots_left());
        RegCloseKey(key);
    }
    ReleaseSRWLockExclusive(&slots_teller);
}

/* A warning of words and an error code, nothing else. */
static void warn(DWORD id, struct outcome why)
{
    struct message message = {.id = id, .type = EVENTLOG_WARNING_TYPE, .strings = 2};
    message.words = WORDS[why.trouble];
    message.words_at = 0;
    hexadecimal(message.number[1], why.error);
    report(&message);
}

void log_unnamed(struct outcome why)
{
    warn(MESSAGE_UNNAMED, why);
}

void log_settings(struct outcome why, const struct settings *settings)
{
    struct outcome news = {NO_TROUBLE, 0};
    AcquireSRWLockExclusive(&settings_teller);
    enum trouble before = settings_trouble;
    if (before != why.trouble || !bytes_equal(key_id_told, settings->identity.key_id, KEY_ID_BYTES))
        news = tell_settings(0);
    int another = news.trouble != before;
    ReleaseSRWLockExclusive(&settings_teller);
    if (another && news.trouble != NO_TROUBLE)
        warn(MESSAGE_OLD_SETTINGS, news);
}
