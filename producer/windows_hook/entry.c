/* What LSASS calls (Microsoft: "Password Filters", ntsecapi.h). It calls from any thread, several at a time, on the
 * domain controller where the password is set, and waits: so there is no network here, no other process and no lock that
 * is held over a disk's slowness, except where the disk is in trouble already. Nothing here may ever fail a change. */
#include "bytes.h"
#include "cng.h"
#include "filter.h"
#include "guard.h"
#include "log.h"
#include "platform.h"
#include "selftest.h"
#include "slots.h"
#include "store.h"

/* UNICODE_STRING of ntsecapi.h: lengths in bytes. The buffers are LSASS's and only read. */
struct string {
    u16 length, most;
    u16 *buffer;
};

/* One change, and all memory that its password is in. */
struct change {
    const struct string *name, *password;
    u32 rid, password_bytes;
    enum decision decision;
    struct outcome outcome;
    u8 plain[PLAIN_BYTES];
    struct hpke work;
};

static volatile LONG ready;

static void fail(struct change *change, enum trouble trouble, u32 error)
{
    change->outcome = (struct outcome){trouble, error};
}

/* A name that cannot be read excludes nobody. */
static void look_at_name(void *argument)
{
    struct change *change = argument;
    const struct string *name = change->name;
    if (name && name->buffer)
        change->decision = filter(name->buffer, name->length / sizeof(u16), change->rid, change->password_bytes);
}

static void copy_password(void *argument)
{
    struct change *change = argument;
    const struct string *password = change->password;
    if (!password || !password->buffer)
        return;
    u32 length = password->length; /* read once: it decides how much is copied */
    if (length > PASSWORD_BYTES || length % sizeof(u16)) {
        fail(change, TROUBLE_LENGTH, length);
        return;
    }
    change->password_bytes = length;
    bytes_copy(change->plain + PLAIN_PASSWORD, password->buffer, length);
}

static void prepare_slots_now(void *argument)
{
    struct settings settings;
    int ever_good;
    (void)argument;
    settings_read(&settings, &ever_good);
    if (ever_good)
        slots_prepare(settings.folder);
    log_slots_left();
}

/* Those of another folder than before: 256 files, which no change should wait for. */
static VOID CALLBACK prepare_slots(PTP_CALLBACK_INSTANCE instance, PVOID context)
{
    (void)instance;
    guard_call(prepare_slots_now, context);
}

static void seal_and_store(void *argument)
{
    struct change *change = argument;
    struct settings settings;
    int ever_good;
    FILETIME now;
    u8 record[RECORD_BYTES];
    if (!ready) {
        fail(change, TROUBLE_REFUSED, 0);
        return;
    }
    GetSystemTimePreciseAsFileTime(&now);
    u64 filetime = (u64)now.dwHighDateTime << 32 | now.dwLowDateTime;
    struct outcome settings_outcome = settings_read(&settings, &ever_good);
    log_settings(settings_outcome, &settings);
    if (!ever_good) {
        change->outcome = settings_outcome;
        return;
    }
    record_plain(change->plain, change->rid, change->password_bytes, filetime);
    int failed = record_seal(&change->work, settings.recipient, &settings.identity, change->plain, record);
    if (failed) {
        fail(change, TROUBLE_SEAL, (u32)failed);
        return;
    }
    struct stored stored = store_write(settings.folder, record, filetime, change->rid);
    if (stored.detour.trouble != NO_TROUBLE && stored.outcome.trouble == NO_TROUBLE)
        log_slot(stored.detour, slots_left());
    if (stored.slots_changed)
        log_slots_left();
    if (slots_moved())
        TrySubmitThreadpoolCallback(prepare_slots, NULL, NULL); /* without it each change makes one */
    if (stored.unnamed.trouble != NO_TROUBLE)
        log_unnamed(stored.unnamed);
    change->outcome = stored.outcome;
}

static void report_loss(void *argument)
{
    struct change *change = argument;
    log_lost(change->rid, change->outcome);
}

static void capture(struct change *change)
{
    u32 fault = guard_call(copy_password, change);
    if (!fault && change->outcome.trouble == NO_TROUBLE) {
        change->decision = filter(NULL, 0, change->rid, change->password_bytes);
        if (change->decision == CAPTURE)
            guard_call(look_at_name, change);
        if (change->decision == CAPTURE)
            fault = guard_call(seal_and_store, change);
    }
    bytes_wipe(change->plain, sizeof change->plain);
    bytes_wipe(&change->work, sizeof change->work);
    if (fault)
        fail(change, TROUBLE_FAULT, fault);
    if (change->outcome.trouble != NO_TROUBLE)
        guard_call(report_loss, change);
}

/* A disk that is full keeps nobody from loading while there are slots: LSASS calls no DLL that has refused, not even
 * when there is room again. */
static struct outcome start_folder(const WCHAR *folder)
{
    struct outcome outcome = store_probe(folder);
    int full = store_full(outcome);
    if (outcome.trouble != NO_TROUBLE && !full)
        return outcome;
    u32 error = slots_prepare(folder);
    log_slots_left();
    if (full || error)
        log_short_of_slots(full ? outcome : (struct outcome){TROUBLE_WRITE, error}, slots_left());
    return full ? store_probe_slot(folder, outcome) : outcome;
}

static void start(void *argument)
{
    struct outcome *outcome = argument;
    struct settings settings;
    int ever_good;
    log_open();
    int failed = cng_open();
    *outcome = failed ? (struct outcome){TROUBLE_CRYPTOGRAPHY, (u32)failed} : selftest_cryptography();
    if (outcome->trouble == NO_TROUBLE)
        *outcome = settings_read(&settings, &ever_good);
    if (outcome->trouble == NO_TROUBLE)
        *outcome = selftest_seal(&settings);
    if (outcome->trouble == NO_TROUBLE)
        *outcome = start_folder(settings.folder);
}

static void report_start(void *argument)
{
    struct outcome *outcome = argument;
    if (outcome->trouble == NO_TROUBLE)
        log_loaded();
    else
        log_refused(*outcome);
}

/* At LSASS's start. FALSE: LSASS goes on without this DLL. Better that, and a message, than to take changes and lose them. */
__declspec(dllexport) BOOLEAN NTAPI InitializeChangeNotify(void)
{
    struct outcome outcome = {NO_TROUBLE, 0};
    u32 fault = guard_call(start, &outcome);
    if (fault)
        outcome = (struct outcome){TROUBLE_FAULT, fault};
    InterlockedExchange(&ready, outcome.trouble == NO_TROUBLE);
    guard_call(report_start, &outcome);
    return outcome.trouble == NO_TROUBLE;
}

/* After a change that AD has committed. The NTSTATUS is not looked at by LSASS; it is always 0. */
__declspec(dllexport) LONG NTAPI PasswordChangeNotify(struct string *name, ULONG rid, struct string *password)
{
    struct change change = {.name = name, .password = password, .rid = rid};
    capture(&change);
    return 0;
}

/* Before a change: may it be? Always. Refusing is not our business, and krbtgt's change must never be refused. */
__declspec(dllexport) BOOLEAN NTAPI PasswordFilter(struct string *account, struct string *full_name,
                                                   struct string *password, BOOLEAN set)
{
    (void)account, (void)full_name, (void)password, (void)set;
    return TRUE;
}

BOOL WINAPI DllMain(HINSTANCE instance, DWORD reason, LPVOID reserved)
{
    (void)instance, (void)reason, (void)reserved;
    return TRUE;
}
