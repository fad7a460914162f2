/* Which changes are captured. The source and the consumer ask again, with all that AD knows of the account
 * (passrelay_schemas/deny.py); this keeps what nobody wants out of the folder. */
#ifndef FILTER_H
#define FILTER_H

#include "platform.h"

enum decision {
    CAPTURE,
    SKIP_MACHINE,  /* a machine, trust or managed service account: its name ends in $ */
    SKIP_KRBTGT,   /* krbtgt, and krbtgt_<n> of read-only controllers */
    SKIP_BUILT_IN, /* RID 500 to 502; 500 is also what a change of the DSRM password comes with */
    SKIP_EMPTY,    /* no password */
};

/* `name` may be NULL when it is unknown or cannot be read: the RID alone names the account. */
enum decision filter(const u16 *name, size_t units, u32 rid, size_t password_bytes);

#endif
