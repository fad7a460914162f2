/* A call that outlives exceptions. gcc's C has no __try: guard.S is one, with Windows' own __C_specific_handler. */
#ifndef GUARD_H
#define GUARD_H

#include "platform.h"

/* Calls step(argument). Returns 0, or the code of the exception that ended it. Nothing is wiped here: whoever calls owns
 * the memory that `step` works in, and wipes it after either. */
u32 guard_call(void (*step)(void *), void *argument);

#endif
