/* The sizes: which events there are. key is the place in AD's order (the version first), time what the clock of the
   domain controller said: clocks are skewed, so the two differ. The last entry is the operator's floor. */

#ifndef SERVERS
#define SERVERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef COPIES
#define COPIES 1        /* settle copies of one event that are told apart; more count as so many */
#endif
#ifndef OPS
#define OPS 10          /* operations that matter at one time, and one more; an assertion says when it is too small */
#endif
#ifndef WAY
#define WAY 4           /* operations on the way between two servers; likewise */
#endif
#ifdef SHORTEST         /* spin's breadth-first search wants constants and scratch in the state */
#define HIDDEN
#else
#define HIDDEN hidden
#endif

#ifdef FLOOR            /* the operator writes one floor with this key: only what is newer passes */
#define FLOOR_KEY FLOOR
#else
#define FLOOR_KEY 0
#endif

#ifdef CHANGES2
#define EVENTS 2
HIDDEN byte key[3] = {1, 2, FLOOR_KEY};
HIDDEN byte time[3] = {2, 1, 0};
HIDDEN byte tick[3];
#endif
#ifdef CHANGES3
#define EVENTS 3
HIDDEN byte key[4] = {1, 2, 3, FLOOR_KEY};
HIDDEN byte time[4] = {3, 1, 2, 0};
HIDDEN byte tick[4];
#endif
#ifdef TICK             /* two changes, and a must-change tick (kind expire) of the one with this key */
#define EVENTS 3
HIDDEN byte key[4] = {1, 2, TICK, FLOOR_KEY};
HIDDEN byte time[4] = {2, 1, TICK, 0};
HIDDEN byte tick[4] = {0, 0, 1, 0};
#endif
#ifdef TWINS            /* two changes, the newer one captured by two domain controllers */
#define EVENTS 3
HIDDEN byte key[4] = {1, 2, 2, FLOOR_KEY};
HIDDEN byte time[4] = {2, 1, 1, 0};
HIDDEN byte tick[4];
#endif
bit must[EVENTS];       /* must change at next logon, as captured with the password */

#ifdef NO_KVNO
#define ORDER(e) time[e]
#else
#define ORDER(e) key[e]
#endif
#define MUST(e) (must[e] || tick[e])

/* ANY_MUST: each change must be changed at next logon, or not. MUST_BITS: exactly these. */
inline choose_events() {
#ifdef ANY_MUST
    atomic {
        if :: must[0] = 0 :: must[0] = 1 fi;
        if :: must[1] = 0 :: must[1] = 1 fi
#if EVENTS == 3
        ; if :: must[2] = 0 :: !tick[2] -> must[2] = 1 fi
#endif
    }
#elif defined(MUST_BITS)
    atomic {
        must[0] = MUST_BITS & 1;
        must[1] = (MUST_BITS >> 1) & 1
#if EVENTS == 3
        ; must[2] = (MUST_BITS >> 2) & 1
#endif
    }
#else
    skip
#endif
}
