/* What can go wrong, as a value; log.c has the words. */
#ifndef TROUBLE_H
#define TROUBLE_H

#include "platform.h"

enum trouble {
    NO_TROUBLE,
    TROUBLE_FAULT,         /* an address could not be read, or anything else that raised an exception */
    TROUBLE_CRYPTOGRAPHY,  /* CNG does not give what RFC 9180 says */
    TROUBLE_NO_SETTINGS,   /* the registry key is not there */
    TROUBLE_RECIPIENT_KEY, /* missing, of another length, or no point of the curve */
    TROUBLE_KEY_ID,        /* not the id of the recipient key */
    TROUBLE_PRODUCER,
    TROUBLE_DOMAIN_SID,
    TROUBLE_FOLDER_VALUE,
    TROUBLE_CREATE,
    TROUBLE_WRITE,
    TROUBLE_FLUSH,
    TROUBLE_RENAME,
    TROUBLE_GONE, /* the file was not there any more when it should get its final name */
    TROUBLE_SEAL,
    TROUBLE_LENGTH, /* a password longer than AD's own limit, or half a character */
    TROUBLE_REFUSED, /* the start-up self-test had refused to load */
    TROUBLES,
};

struct outcome {
    enum trouble trouble;
    u32 error; /* Windows' code, NTSTATUS or exception code; 0 where there is none */
};

#endif
