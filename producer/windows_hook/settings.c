#include "settings.h"

#include "bytes.h"

static SRWLOCK lock = SRWLOCK_INIT;
static struct settings last_good;
static int have_good;

/* A text that must be ASCII and fit its field, which is then padded with NUL. */
static LSTATUS read_ascii(HKEY key, LPCWSTR name, char *field, size_t size)
{
    WCHAR text[PRODUCER_BYTES + 1];
    DWORD length = sizeof text;
    LSTATUS failed = RegGetValueW(key, NULL, name, RRF_RT_REG_SZ, NULL, text, &length);
    bytes_wipe(field, size);
    for (size_t i = 0; !failed && text[i]; i++) {
        if (i >= size || text[i] > 126)
            failed = ERROR_INVALID_DATA;
        else
            field[i] = (char)text[i];
    }
    return failed;
}

static struct outcome fail(enum trouble trouble, LSTATUS error)
{
    return (struct outcome){trouble, (u32)(error ? error : ERROR_INVALID_DATA)};
}

static int letter(WCHAR unit)
{
    return (unit >= 'a' && unit <= 'z') || (unit >= 'A' && unit <= 'Z');
}

static struct outcome read_values(HKEY key, struct settings *settings)
{
    struct identity *identity = &settings->identity;
    char id[KEY_ID_BYTES] = {0};
    DWORD length = sizeof settings->recipient;
    LSTATUS failed = RegGetValueW(key, NULL, L"RecipientKey", RRF_RT_REG_BINARY, NULL, settings->recipient, &length);
    if (failed || length != sizeof settings->recipient || !recipient_on_curve(settings->recipient))
        return fail(TROUBLE_RECIPIENT_KEY, failed);
    failed = read_ascii(key, L"RecipientKeyId", identity->key_id, KEY_ID_BYTES);
    if (failed || recipient_key_id(settings->recipient, id) || !bytes_equal(id, identity->key_id, KEY_ID_BYTES))
        return fail(TROUBLE_KEY_ID, failed);
    failed = read_ascii(key, L"Producer", identity->producer, PRODUCER_BYTES);
    if (failed || !record_producer_good(identity->producer))
        return fail(TROUBLE_PRODUCER, failed);
    failed = read_ascii(key, L"DomainSid", identity->domain_sid, DOMAIN_SID_BYTES);
    if (failed || !record_domain_sid_good(identity->domain_sid))
        return fail(TROUBLE_DOMAIN_SID, failed);
    length = sizeof settings->folder;
    failed = RegGetValueW(key, NULL, L"Folder", RRF_RT_REG_SZ, NULL, settings->folder, &length);
    const WCHAR *folder = settings->folder;
    if (failed || !letter(folder[0]) || folder[1] != ':' || folder[2] != '\\' || !folder[3])
        return fail(TROUBLE_FOLDER_VALUE, failed); /* \\server\share would be the network */
    return (struct outcome){NO_TROUBLE, 0};
}

struct outcome settings_read(struct settings *settings, int *ever_good)
{
    HKEY key;
    struct outcome outcome = {NO_TROUBLE, 0};
    LSTATUS failed = RegOpenKeyExW(HKEY_LOCAL_MACHINE, SETTINGS_KEY, 0, KEY_QUERY_VALUE | KEY_WOW64_64KEY, &key);
    bytes_wipe(settings, sizeof *settings);
    if (failed) {
        outcome = fail(TROUBLE_NO_SETTINGS, failed);
    } else {
        outcome = read_values(key, settings);
        RegCloseKey(key);
    }
    AcquireSRWLockExclusive(&lock);
    if (outcome.trouble == NO_TROUBLE) {
        bytes_copy(&last_good, settings, sizeof last_good);
        have_good = 1;
    } else if (have_good) {
        bytes_copy(settings, &last_good, sizeof last_good);
    }
    *ever_good = have_good;
    ReleaseSRWLockExclusive(&lock);
    return outcome;
}
