/* The order of writes at one IdM entry, with everything that may happen to it: several consumers, several servers with
   last-writer-wins replication and skewed clocks, failover at any moment, events late, repeated and out of order, a
   crash at every step. docs/order.md says what is left out and why that is allowed, and how to run it.

   A protection is taken away by one of: NO_COMPARE_AND_SET, NO_SETTLE, ACK_FIRST, NO_FLAG_X, NO_KVNO, NO_PROOF;
   weaker rules that were tried: WEAK_SETTLE, OWN_COPIES, TORN_BY_TEXT. */

#include "events.pml"

/* Messages: originals and settle copies of each event that are not acked yet. The tiers keep no order and no time, so
   queue and tiers are one bag. */
byte mail[EVENTS];
byte copies[EVENTS];
bit recorded[EVENTS];   /* it stands in the journal */

#define IDLE 0
#define WRITE 1         /* has read and decided, the write follows (only with SPLIT) */
#define FINISH 2        /* has written, the must-change step follows */
#define LOOK 3          /* a settle copy that found its own write: looks at the other servers */
#define PUBLISH 4       /* all is written: publishes the settle copy */
#define RECORD 5        /* records, then acks */
typedef Consumer {
    byte at; byte event; bit copy;
    byte server; byte base; byte flag; byte proof;  /* what it read: where, the marker's text, the proof's text */
    byte seen                                       /* the next server to look at */
};
Consumer consumer[CONSUMERS];

bit calm;               /* no more faults from here on */
#ifdef FLOOR
bit floored;
#endif

#include "operations.pml"

/* ---- the rule: consumer/passrelay_consumer/decide.py and settle.py ---- */

#define EARLY 0
#define WRITES 1
#define FINISHES 2
#define DUPLICATE 3
#define SUPERSEDED 4

#ifdef NO_PROOF         /* believed: the password is of the write that the marker names */
#define PROOF(s) op_base[marker[s]]
#else
#define PROOF(s) password[s]
#endif
#define BY_MARKER(s) ORDER(op_event[marker[s]])
#define BY_PROOF(s) ORDER(op_event[PROOF(s)])
#define IS_FLOOR(s) (op_flag[marker[s]] == F)
#define NEWEST(s) (IS_FLOOR(s) || BY_MARKER(s) > BY_PROOF(s) -> BY_MARKER(s) : BY_PROOF(s))
#ifdef TORN_BY_TEXT
#define TORN(s) (op_base[marker[s]] != PROOF(s))
#else
#define TORN(s) (BY_MARKER(s) != BY_PROOF(s))
#endif
#ifdef NO_FLAG_X        /* nothing tells whether the must-change step was done */
#define IS_DONE(s) true
#else
#define IS_DONE(s) (op_flag[marker[s]] == X)
#endif
#define DECISION(e, s) \
    (marker[s] == 0 || NEWEST(s) < ORDER(e) -> (tick[e] -> EARLY : WRITES) : \
    (NEWEST(s) > ORDER(e) || IS_FLOOR(s) -> SUPERSEDED : \
    (TORN(s) -> (tick[e] -> EARLY : WRITES) : \
    (MUST(e) && !IS_DONE(s) -> FINISHES : DUPLICATE))))

#define SAME_MARKER(c, v) (consumer[c].base == op_base[marker[v]] && consumer[c].flag == op_flag[marker[v]])
#ifdef NO_PROOF
#define SAME_TEXT(c, v) SAME_MARKER(c, v)
#else
#define SAME_TEXT(c, v) (SAME_MARKER(c, v) && consumer[c].proof == password[v])
#endif
#ifdef NO_COMPARE_AND_SET
#define WRITE_HOLDS(c, v) true
#else
#define WRITE_HOLDS(c, v) SAME_TEXT(c, v)
#endif
#if defined(NO_COMPARE_AND_SET) || defined(NO_FLAG_X)
#define FINISH_HOLDS(c, v) true
#else
#define FINISH_HOLDS(c, v) SAME_MARKER(c, v)
#endif
#ifdef WEAK_SETTLE      /* believed: not older on any server is enough */
#define AGREES(c, v) (marker[v] != 0 && !TORN(v) && NEWEST(v) >= ORDER(consumer[c].event))
#else
#define AGREES(c, v) SAME_TEXT(c, v)
#endif
#ifdef OWN_COPIES       /* believed: who finds another event's write need not look after it */
#define LEAVES_COPY(e, s) (op_event[marker[s]] == e)
#else
#define LEAVES_COPY(e, s) true
#endif
#ifdef ACK_FIRST        /* acked once written; only then the settle copy and the record */
#define ACK_BEFORE mail[e]--
#define ACK_AFTER skip
#define UNACKED(c) (consumer[c].at != IDLE && consumer[c].at < PUBLISH)
#else
#define ACK_BEFORE skip
#define ACK_AFTER mail[e]--
#define UNACKED(c) (consumer[c].at != IDLE)
#endif
#ifdef NO_SETTLE
#define AFTER_WRITE RECORD
#else
#define AFTER_WRITE PUBLISH
#endif

/* ---- who can do what now ---- */

#define FREE(c) (consumer[c].at == IDLE)
#define HOLDS(c, e, y) (UNACKED(c) && consumer[c].copy == y && consumer[c].event == e)
#if CONSUMERS == 2
#define ANY_FREE (FREE(0) || FREE(1))
#define ALL_FREE (FREE(0) && FREE(1))
#define HELD(e, y) (HOLDS(0, e, y) + HOLDS(1, e, y))
#define EACH_CONSUMER(T) T(0) T(1)
#else
#define ANY_FREE FREE(0)
#define ALL_FREE FREE(0)
#define HELD(e, y) HOLDS(0, e, y)
#define EACH_CONSUMER(T) T(0)
#endif
#if SERVERS == 2
#define NOTHING_ON_THE_WAY (way[1].n + way[2].n == 0)
#define EACH_SERVER(T, ev, cp) T(ev, cp, 0) T(ev, cp, 1)
#define ARRIVALS ARRIVE(0, 1) ARRIVE(1, 0)
#else
#define NOTHING_ON_THE_WAY (way[1].n + way[2].n + way[3].n + way[5].n + way[6].n + way[7].n == 0)
#define EACH_SERVER(T, ev, cp) T(ev, cp, 0) T(ev, cp, 1) T(ev, cp, 2)
#define ARRIVALS ARRIVE(0, 1) ARRIVE(1, 0) ARRIVE(0, 2) ARRIVE(2, 0) ARRIVE(1, 2) ARRIVE(2, 1)
#endif
#define EACH_MESSAGE(T, ev) EACH_SERVER(T, ev, 0) EACH_SERVER(T, ev, 1)
#if EVENTS == 2
#define ALL_ACKED (mail[0] + mail[1] + copies[0] + copies[1] == 0)
#define TAKES(T) EACH_MESSAGE(T, 0) EACH_MESSAGE(T, 1)
#else
#define ALL_ACKED (mail[0] + mail[1] + mail[2] + copies[0] + copies[1] + copies[2] == 0)
#define TAKES(T) EACH_MESSAGE(T, 0) EACH_MESSAGE(T, 1) EACH_MESSAGE(T, 2)
#endif

/* With faults an event is handed out at any time, any number of times: unpublished for long, waiting in tiers,
   redelivered, replayed, republished. When calm, each message once; and a settle copy, which waits 15 s and more,
   comes when replication is done. Which server a consumer takes for the current one is open each time. */
#define TAKE(ev, cp, sv) \
    :: atomic { \
        ANY_FREE && (cp -> copies[ev] > HELD(ev, 1) : 1) && DECISION(ev, sv) != EARLY -> \
        e = ev; y = cp; s = sv; goto take }
#define CALM_TAKE(ev, cp, sv) \
    :: atomic { \
        ANY_FREE && (cp -> copies[ev] > HELD(ev, 1) && NOTHING_ON_THE_WAY : mail[ev] > HELD(ev, 0)) && \
        DECISION(ev, sv) != EARLY -> \
        e = ev; y = cp; s = sv; goto take }
#define GO_ON(who) :: atomic { !FREE(who) -> c = who; goto go_on }
#define CRASH(who) :: atomic { !FREE(who) -> c = who; goto crash }
#define ARRIVE(from, to) :: atomic { way[from*SERVERS+to].n > 0 -> s = from; r = to; goto arrive }
#ifdef FLOOR
#define SET_FLOOR(sv) :: atomic { !floored && marker[sv] != 0 -> s = sv; goto set_floor }
#define SET_FLOORS SET_FLOOR(0) SET_FLOOR(1)
#else
#define SET_FLOORS
#endif

/* ---- steps ---- */

inline idle() {
    consumer[c].at = IDLE; consumer[c].event = 0; consumer[c].copy = 0; consumer[c].server = 0;
    consumer[c].base = 0; consumer[c].flag = 0; consumer[c].proof = 0; consumer[c].seen = 0
}

inline holds(where) {
    consumer[c].at = where; consumer[c].event = e; consumer[c].copy = y
}

inline remembers_text() {
    consumer[c].server = s; consumer[c].base = op_base[marker[s]]; consumer[c].flag = op_flag[marker[s]];
    consumer[c].proof = password[s]
}

/* All is written. A settle copy simply stays for its next round; an event leaves its copy and its record. */
inline written() {
    idle();
    if
    :: y -> skip
    :: else -> ACK_BEFORE; holds(AFTER_WRITE)
    fi
}

inline write() {
    printf("@ write %d %d %d %d\n", c, e, s, y);
    operate(0);
    if
    :: must[e] -> holds(FINISH); remembers_text()
    :: else -> written()
    fi
}

inline finish() {
    printf("@ finish %d %d %d %d\n", c, e, s, y);
    operate(X);
    written()
}

/* Any place above what this server has seen. */
inline any_csn() {
    r = marker[s] + 1;
#ifdef NO_FLAG_X
    if :: expiry[s] >= r -> r = expiry[s] + 1 :: else fi;
#endif
    do
    :: r <= ops -> r++
    :: break
    od;
    skip
}

/* Consumers are alike: keep them in one order. */
#define SWAP(field) i = consumer[0].field; consumer[0].field = consumer[1].field; consumer[1].field = i
#define WEIGHT(c) \
    (consumer[c].at + 8 * (consumer[c].event + 4 * (consumer[c].copy + 2 * (consumer[c].server + 4 * \
    (consumer[c].base + 16 * (consumer[c].proof + 16 * (consumer[c].flag + 4 * consumer[c].seen)))))))
inline in_order() {
#if CONSUMERS == 2
    if
    :: WEIGHT(0) < WEIGHT(1) ->
        SWAP(at); SWAP(event); SWAP(copy); SWAP(server); SWAP(base); SWAP(flag); SWAP(proof); SWAP(seen);
        printf("@ swap\n")
    :: else
    fi
#else
    skip
#endif
}
/* What must hold when everything is done. */
inline check() {
    i = 0; p = 0; m = 0;
    do
    :: i < EVENTS -> if :: !tick[i] && key[i] > p -> p = key[i] :: else fi; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < EVENTS ->
        if :: key[i] == p && MUST(i) -> m = 1 :: else fi;
        if :: !recorded[i] -> printf("@ wrong silent %d\n", i) :: else fi;
        assert(recorded[i]);
        i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < SERVERS ->
        if :: key[op_event[password[i]]] != p -> printf("@ wrong stale %d\n", i) :: else fi;
        assert(password[i] != 0 && key[op_event[password[i]]] == p);
#ifdef NO_FLAG_X
        if :: (op_flag[expiry[i]] == X) != m -> printf("@ wrong expiry %d %d\n", i, m) :: else fi;
        assert((op_flag[expiry[i]] == X) == m);
#else
        if :: (op_flag[marker[i]] == X) != m -> printf("@ wrong expiry %d %d\n", i, m) :: else fi;
        assert((op_flag[marker[i]] == X) == m);
        if :: !IS_FLOOR(i) && BY_MARKER(i) != ORDER(op_event[password[i]]) -> printf("@ wrong marker %d\n", i) :: else fi;
        assert(IS_FLOOR(i) || BY_MARKER(i) == ORDER(op_event[password[i]]));
#endif
        i++
    :: else -> break
    od;
    forget_scratch()
}

active proctype world() {
    byte c, e, s, r;
    bit y;

    choose_events();
    d_step {
        do
        :: e < EVENTS -> mail[e] = 1; printf("@ event %d %d %d %d\n", e, key[e], must[e], tick[e]); e++
        :: else -> break
        od;
        e = 0
    };
faulty:
    do
    TAKES(TAKE)
    EACH_CONSUMER(GO_ON)
    EACH_CONSUMER(CRASH)
    ARRIVALS
    SET_FLOORS
    :: atomic { calm = 1; printf("@ calm\n"); goto accept_calm }
    od;
accept_calm:            /* spin reports any run that goes on here for ever, and any that stops before all is done */
    do
    TAKES(CALM_TAKE)
    EACH_CONSUMER(GO_ON)
    ARRIVALS
    :: atomic { ALL_ACKED && ALL_FREE && NOTHING_ON_THE_WAY -> break }
    od;
    skip;
    d_step { check() };
    goto done;

    atomic {
    skip;
take:
    /* Takes a message and reads the entry at server s. The write that follows is part of this step: a compare-and-set
       that succeeds proves that nothing changed since the read, one that fails is another take. */
    c = (FREE(0) -> 0 : CONSUMERS - 1);
    if :: !y && mail[e] == HELD(e, 0) -> mail[e]++ :: else fi;      /* handed out once more */
    if
    :: DECISION(e, s) == SUPERSEDED ->
        d_step {
            if
            :: y -> printf("@ retired %d %d %d\n", c, e, s); copies[e]--
            :: else -> printf("@ superseded %d %d %d\n", c, e, s); ACK_BEFORE; holds(RECORD)
            fi
        }
    :: DECISION(e, s) == DUPLICATE ->
        d_step {
            if
            :: y -> printf("@ look %d %d %d\n", c, e, s); holds(LOOK); remembers_text(); consumer[c].seen = (s == 0)
            :: else ->
                printf("@ duplicate %d %d %d\n", c, e, s);
                ACK_BEFORE;
                if :: LEAVES_COPY(e, s) -> holds(AFTER_WRITE) :: else -> holds(RECORD) fi
            fi
        }
    :: DECISION(e, s) == WRITES ->
#ifdef SPLIT
        d_step { printf("@ read %d %d %d %d\n", c, e, s, y); holds(WRITE); remembers_text() }
#else
        any_csn();
        d_step { write() }
#endif
    :: DECISION(e, s) == FINISHES ->
        any_csn();
        d_step { consumer[c].base = op_base[marker[s]]; finish() }
    fi;
    goto tidy_up;

go_on:
    e = consumer[c].event; s = consumer[c].server; y = consumer[c].copy;
    if
#ifdef SPLIT
    :: consumer[c].at == WRITE && !WRITE_HOLDS(c, s) -> d_step { printf("@ refused %d %d %d\n", c, e, s); idle() }
    :: consumer[c].at == WRITE && WRITE_HOLDS(c, s) -> any_csn(); d_step { write() }
#endif
    :: consumer[c].at == FINISH && !FINISH_HOLDS(c, s) -> d_step { printf("@ refused %d %d %d\n", c, e, s); idle() }
    :: consumer[c].at == FINISH && FINISH_HOLDS(c, s) -> any_csn(); d_step { finish() }
    :: consumer[c].at == LOOK ->    /* at one server after the other; others write in between */
        d_step {
            s = consumer[c].seen;
            if
            :: !AGREES(c, s) -> printf("@ differs %d %d %d\n", c, e, s); idle()
            :: else ->
                printf("@ agrees %d %d %d\n", c, e, s);
                consumer[c].seen = s + 1;
                if :: s + 1 == consumer[c].server -> consumer[c].seen = s + 2 :: else fi;
                if
                :: consumer[c].seen >= SERVERS -> printf("@ settled %d %d\n", c, e); copies[e]--; idle()
                :: else
                fi
            fi
        }
    :: consumer[c].at == PUBLISH ->
        d_step {
            printf("@ publish %d %d\n", c, e);
            if :: copies[e] < COPIES -> copies[e]++ :: else fi;
            holds(RECORD)
        }
    :: consumer[c].at == RECORD ->
        d_step { printf("@ record %d %d\n", c, e); recorded[e] = 1; idle(); ACK_AFTER }
    fi;
    goto tidy_up;

crash:                  /* it dies, or gives up for want of an answer: what it holds is handed out again */
    skip;
    d_step { printf("@ crash %d %d\n", c, consumer[c].event); idle() };
    goto tidy_up;

arrive:
    skip;
    d_step { arrives() };
    goto tidy_up;

#ifdef FLOOR
set_floor:
    floored = 1;
    any_csn();
    d_step { e = EVENTS; printf("@ floor %d\n", s); operate(F) };
#endif

tidy_up:
    skip;
    d_step { tidy(); in_order(); c = 0; e = 0; s = 0; r = 0; y = 0; i = 0 };
    if
    :: calm -> goto accept_calm
    :: else -> goto faulty
    fi
    };
done:
    skip
}
