/* From a change in AD to an acked message: several domain controllers, spools, publisher confirms, queue, tiers, dead
   letters, journal, and a crash or a loss at every step. What a consumer writes is left to order.pml, which lets every
   event arrive at any time, at least once, any number of times: this model shows that it does arrive.

   A protection is taken away by one of: CURSOR_FIRST, NO_CONFIRMS, ACK_FIRST, MARK_REPLAYED_FIRST. */

#define DCS 2
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#define MESSAGES 2      /* of one change; publishers wait while there are so many, consumers never do */
#define VERSIONS (CHANGES + 1)

byte version[DCS];      /* of the password, on each domain controller */
byte cursor[DCS];       /* the last version that the producer there has read */
bit half_done[DCS];     /* its cursor is stored, its event is not (only with CURSOR_FIRST) */
byte newest;

#define TO_PUBLISH 1
#define PUBLISHED 2
byte spool[DCS * VERSIONS];

byte mail[VERSIONS];    /* in the work queue or in a tier, not acked */
bit letter[VERSIONS];   /* a live dead letter */
bit in_hand[VERSIONS];  /* an operator's replay: marked, not published yet (only with MARK_REPLAYED_FIRST) */
bit applied[VERSIONS];
bit recorded[VERSIONS];

#define IDLE 0
#define AT_WORK 1       /* opened, found, decided, written; or trouble */
#define TO_TIER 2
#define TO_DEAD 3
#define TO_JOURNAL 4
#define TO_ACK 5
typedef Consumer { byte at; byte version };
Consumer consumer[CONSUMERS];
bit calm;

#ifdef ACK_FIRST        /* acked when taken, as with automatic acks */
#define ACK_AT_ONCE mail[v]--
#define ACK skip
#define HOLDS(c, v) 0
#else
#define ACK_AT_ONCE skip
#define ACK mail[v]--
#define HOLDS(c, v) (consumer[c].at != IDLE && consumer[c].version == v)
#endif
#define FREE(c) (consumer[c].at == IDLE)
#if CONSUMERS == 2
#define HELD(v) (HOLDS(0, v) + HOLDS(1, v))
#define ANY_FREE (FREE(0) || FREE(1))
#define ALL_FREE (FREE(0) && FREE(1))
#define EACH_CONSUMER AT_CONSUMER(0) AT_CONSUMER(1)
#else
#define HELD(v) HOLDS(0, v)
#define ANY_FREE FREE(0)
#define ALL_FREE FREE(0)
#define EACH_CONSUMER AT_CONSUMER(0)
#endif
#define ROW spool[d * VERSIONS + v]
#define ENQUEUE if :: mail[v] < MESSAGES + CONSUMERS -> mail[v]++ :: else fi     /* more are as many */
#define ROOM(vv) (mail[vv] < MESSAGES)

inline idle() {
    consumer[c].at = IDLE; consumer[c].version = 0
}

/* ---- steps; each begins with a guard on the choices made before ---- */

#define AT_DC(dd) \
    :: atomic { !calm && newest < CHANGES && version[dd] == newest -> d = dd; goto change } \
    :: atomic { version[dd] < version[1 - dd] -> d = dd; goto replicate } \
    :: atomic { cursor[dd] < version[dd] && !half_done[dd] -> d = dd; goto capture } \
    :: atomic { half_done[dd] -> d = dd; goto second_half } \
    :: atomic { half_done[dd] && !calm -> half_done[dd] = 0; printf("# the producer on DC %d dies\n", dd + 1); goto top }
#define AT_ROW(dd, vv) \
    :: atomic { spool[dd * VERSIONS + vv] == TO_PUBLISH && ROOM(vv) -> d = dd; v = vv; goto publish } \
    :: atomic { !calm && spool[dd * VERSIONS + vv] == PUBLISHED -> d = dd; v = vv; goto republish }
#define AT_MESSAGE(vv) \
    :: atomic { ANY_FREE && mail[vv] > HELD(vv) -> v = vv; goto take } \
    :: atomic { !calm && mail[vv] > HELD(vv) -> v = vv; goto delivery_limit } \
    :: atomic { letter[vv] && !in_hand[vv] && ROOM(vv) -> v = vv; goto replay } \
    :: atomic { in_hand[vv] && ROOM(vv) -> v = vv; goto second_half_of_replay } \
    :: atomic { in_hand[vv] && !calm -> in_hand[vv] = 0; printf("# the operator's host dies\n"); goto top }
#define AT_CONSUMER(cc) \
    :: atomic { !FREE(cc) -> c = cc; goto go_on } \
    :: atomic { !FREE(cc) && !calm -> c = cc; goto crash }
#if CHANGES == 1
#define EACH_ROW AT_ROW(0, 1) AT_ROW(1, 1)
#define EACH_MESSAGE AT_MESSAGE(1)
#define ALL_PUBLISHED (spool[1] != TO_PUBLISH && spool[VERSIONS+1] != TO_PUBLISH)
#define NONE(what) (what[1] == 0)
#else
#define EACH_ROW AT_ROW(0, 1) AT_ROW(0, 2) AT_ROW(1, 1) AT_ROW(1, 2)
#define EACH_MESSAGE AT_MESSAGE(1) AT_MESSAGE(2)
#define NONE(what) (what[1] + what[2] == 0)
#define ALL_PUBLISHED \
    (spool[1] != TO_PUBLISH && spool[2] != TO_PUBLISH && spool[VERSIONS+1] != TO_PUBLISH && \
    spool[VERSIONS+2] != TO_PUBLISH)
#endif
#define CAPTURED (cursor[0] == newest && cursor[1] == newest && half_done[0] + half_done[1] == 0)
#define ALL_DONE \
    (CAPTURED && ALL_PUBLISHED && NONE(mail) && NONE(letter) && NONE(in_hand) && ALL_FREE)
#define STEPS AT_DC(0) AT_DC(1) EACH_ROW EACH_MESSAGE EACH_CONSUMER

active proctype world() {
    byte c, d, v;

faulty:
    do
    STEPS
    :: atomic { calm = 1; printf("# from here on nothing fails any more\n"); goto accept_calm }
    od;
accept_calm:
    do
    STEPS
    :: atomic { ALL_DONE -> break }
    od;
    skip;
    d_step {
        if :: newest != 0 && !applied[newest] -> printf("# WRONG lost: change %d never reached IdM\n", newest) :: else fi;
        assert(newest == 0 || applied[newest]);
        v = 1;
        do
        :: v < VERSIONS ->
            if
            :: (spool[v] || spool[VERSIONS + v]) && !recorded[v] -> printf("# WRONG silent: change %d has no record\n", v)
            :: else
            fi;
            assert(!(spool[v] || spool[VERSIONS + v]) || recorded[v]);
            v++
        :: else -> break
        od;
        v = 0
    };
    goto done;

    atomic {
    skip;
change:
    newest++; version[d] = newest;
    printf("# the password is changed on DC %d: version %d\n", d + 1, newest);
    goto top;

replicate:
    version[d] = version[1 - d];
    printf("# AD brings version %d to DC %d\n", version[d], d + 1);
    goto top;

capture:                /* what is there now: versions in between are gone, the newest counts */
    cursor[d] = version[d]; v = version[d];
#ifdef CURSOR_FIRST
    half_done[d] = 1;
    printf("# DC %d: the cursor behind version %d is stored\n", d + 1, v);
#else
    ROW = TO_PUBLISH;
    printf("# DC %d: version %d and the cursor are in the spool, in one transaction\n", d + 1, v);
#endif
    goto top;

second_half:
    v = cursor[d]; half_done[d] = 0; ROW = TO_PUBLISH;
    printf("# DC %d: version %d is in the spool\n", d + 1, v);
    goto top;

publish:
    if
    :: ENQUEUE; ROW = PUBLISHED; printf("# DC %d publishes version %d: confirmed, marked\n", d + 1, v)
    :: !calm -> ENQUEUE; printf("# DC %d publishes version %d: it arrives, the confirm does not\n", d + 1, v)
#ifdef NO_CONFIRMS
    :: !calm -> ROW = PUBLISHED; printf("# DC %d publishes version %d: marked, and the broker loses it\n", d + 1, v)
#else
    :: !calm -> printf("# DC %d publishes version %d: the broker loses it, no confirm\n", d + 1, v)
#endif
    fi;
    goto top;

republish:
    ROW = TO_PUBLISH; printf("# producer republish on DC %d: version %d once more\n", d + 1, v);
    goto top;

take:
    c = (FREE(0) -> 0 : CONSUMERS - 1);
    consumer[c].at = AT_WORK; consumer[c].version = v; ACK_AT_ONCE;
    printf("# consumer %d takes version %d\n", c + 1, v);
    goto top;

delivery_limit:         /* at-least-once, by the broker itself */
    mail[v]--; letter[v] = 1; recorded[v] = 1;
    printf("# the broker moves version %d to the dead letters: delivery limit\n", v);
    goto top;

replay:
#ifdef MARK_REPLAYED_FIRST
    letter[v] = 0; in_hand[v] = 1; printf("# dead replay: version %d is marked as replayed\n", v);
#else
    if
    :: ENQUEUE; letter[v] = 0; printf("# dead replay: version %d is published, confirmed, marked as replayed\n", v)
    :: !calm -> ENQUEUE; printf("# dead replay: version %d is published, the operator's host dies\n", v)
    :: !calm -> printf("# dead replay: version %d is lost on its way, no confirm\n", v)
    fi;
#endif
    goto top;

second_half_of_replay:
    in_hand[v] = 0; ENQUEUE; printf("# dead replay: version %d is published\n", v);
    goto top;

go_on:
    v = consumer[c].version;
    if
    :: consumer[c].at == AT_WORK ->
        if
        :: applied[v] = 1; consumer[c].at = TO_JOURNAL;
            printf("# consumer %d writes version %d, or finds it or a newer one written\n", c + 1, v)
        :: !calm -> consumer[c].at = TO_TIER; printf("# consumer %d has trouble with version %d\n", c + 1, v)
        :: !calm -> consumer[c].at = TO_DEAD; printf("# consumer %d gives version %d up\n", c + 1, v)
        fi
    :: consumer[c].at == TO_TIER -> ENQUEUE; consumer[c].at = TO_ACK; printf("# consumer %d: tier, confirmed\n", c + 1)
    :: consumer[c].at == TO_DEAD ->
        letter[v] = 1; consumer[c].at = TO_JOURNAL; printf("# consumer %d: dead letter, confirmed\n", c + 1)
    :: consumer[c].at == TO_JOURNAL ->
        recorded[v] = 1; consumer[c].at = TO_ACK; printf("# consumer %d: journal record, confirmed\n", c + 1)
    :: consumer[c].at == TO_ACK -> idle(); ACK; printf("# consumer %d acks version %d\n", c + 1, v)
    fi;
    goto top;

crash:
    printf("# consumer %d dies\n", c + 1); idle();

top:
    c = 0; d = 0; v = 0;
    if
    :: calm -> goto accept_calm
    :: else -> goto faulty
    fi
    };
done:
    skip
}
