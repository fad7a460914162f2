/* What the administrator is told: the event log (source passrelay-hook), and the registry key SOFTWARE\passrelay\hook\status,
 * which is there without the event log service and gone after a restart. RIDs are named, accounts and passwords never.
 *
 * Whoever reports does not wait: a thread of Windows' pool hands the messages to the event log service. While that does
 * not run (LSASS starts before it) they wait in memory, and it tries again every ten seconds. */
#ifndef LOG_H
#define LOG_H

#include "settings.h"

/* Before anything else; keeps the DLL in memory for as long as the process lives. */
void log_open(void);

void log_loaded(void);
void log_refused(struct outcome why);
void log_lost(u32 rid, struct outcome why);
void log_slot(struct outcome why, int left);
/* At the start: no room, or none for all slots. */
void log_short_of_slots(struct outcome why, int left);
/* For the registry alone: how many there are now. */
void log_slots_left(void);
void log_unnamed(struct outcome why);
/* With what settings_read has found, for each change: says so when that is something else than before. */
void log_settings(struct outcome why, const struct settings *settings);

#endif
