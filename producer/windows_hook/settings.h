/* What the administrator set: HKEY_LOCAL_MACHINE\SOFTWARE\passrelay\hook. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "record.h"
#include "trouble.h"

#define SETTINGS_KEY L"SOFTWARE\\passrelay\\hook"

enum { FOLDER_UNITS = 180 }; /* so that every path of ours stays below MAX_PATH */

struct settings {
    u8 recipient[P256_POINT_BYTES]; /* RecipientKey, REG_BINARY */
    struct identity identity;       /* RecipientKeyId, Producer, DomainSid, REG_SZ */
    WCHAR folder[FOLDER_UNITS];     /* Folder, REG_SZ: on a local disk, C:\... */
};

/* Read now, checked, and kept in memory when good. Otherwise its trouble, and `settings` as they were last good. Reading
 * again for each change is cheap, and a new key needs no restart. `ever_good` is 0 when there is nothing to go on with. */
struct outcome settings_read(struct settings *settings, int *ever_good);

#endif
