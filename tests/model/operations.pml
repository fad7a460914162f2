/* The entry on its servers, and the operations that replication carries between them.

   Operations are numbered in the order of their CSNs, so "the last writer wins" is "the larger number wins". Only the
   order counts, so a new operation is put into any place above what its server has seen (clocks are skewed), and the
   numbers of all later ones move up. 389-ds decides attribute by attribute, and so does apply(). */

#define X 1             /* the must-change step: marker and expiry, no password */
#define F 2             /* an operator's floor: the marker alone */

byte marker[SERVERS];   /* the newest operation on each attribute; 0: never written */
byte password[SERVERS]; /* ... on userPassword and on the proof, which are only written together */
byte expiry[SERVERS];   /* ... on krbPasswordExpiration; always the marker's, so only kept where flag x is taken away */
byte ops;
byte op_event[OPS];     /* the event that the marker's text names */
byte op_base[OPS];      /* the password write that the marker's text names (event id and time); its own, or of flag x */
byte op_flag[OPS];

typedef Way { byte n; byte op[WAY] };
Way way[SERVERS * SERVERS];     /* from * SERVERS + to: in the order in which their server made them */

HIDDEN byte i, j, w, p, m;      /* scratch, used inside one d_step and left at 0 */
HIDDEN byte live[OPS];

#define SETS_PASSWORD(o) (op_flag[o] == 0)

inline apply(v, o) {
#ifdef NO_FLAG_X
    if :: op_flag[o] != X && o > marker[v] -> marker[v] = o :: else fi;
    if :: op_flag[o] != F && o > expiry[v] -> expiry[v] = o :: else fi;
#else
    if :: o > marker[v] -> marker[v] = o :: else fi;
#endif
    if :: SETS_PASSWORD(o) && o > password[v] -> password[v] = o :: else fi
}
#ifdef NO_FLAG_X
#define MATTERS(o, v) (o > expiry[v] || (SETS_PASSWORD(o) && o > marker[v]))
#else
#define MATTERS(o, v) (o > marker[v] || (SETS_PASSWORD(o) && o > password[v]))
#endif

#define UP(reference) if :: reference >= r -> reference = reference + 1 :: else fi

/* A new operation of event e at server s, in place r, made by consumer c (who knows the base of a must-change step). */
inline operate(flag) {
    ops++;
    assert(ops < OPS);
    i = ops;
    do
    :: i > r -> op_event[i] = op_event[i-1]; op_base[i] = op_base[i-1]; op_flag[i] = op_flag[i-1]; i--
    :: else -> break
    od;
    op_base[r] = 0;
    i = 0;
    do :: i <= ops -> UP(op_base[i]); i++ :: else -> break od;
    i = 0;
    do :: i < SERVERS -> UP(marker[i]); UP(password[i]); UP(expiry[i]); i++ :: else -> break od;
    i = 0;
    do :: i < CONSUMERS -> UP(consumer[i].base); UP(consumer[i].proof); i++ :: else -> break od;
    w = 0;
    do
    :: w < SERVERS * SERVERS ->
        i = 0;
        do :: i < way[w].n -> UP(way[w].op[i]); i++ :: else -> break od;
        w++
    :: else -> break
    od;
    op_flag[r] = flag;
    op_base[r] = (flag == X -> consumer[c].base : r);
    op_event[r] = (flag == X -> op_event[op_base[r]] : e);
    apply(s, r);
    w = s * SERVERS;
    do
    :: w < (s + 1) * SERVERS ->
        if
        :: w % SERVERS != s -> assert(way[w].n < WAY); way[w].op[way[w].n] = r; way[w].n++
        :: else
        fi;
        w++
    :: else -> break
    od;
    printf("@ operation %d %d %d %d\n", s, op_event[r], flag, r)
}

/* The oldest operation on the way from s to r arrives. */
inline arrives() {
    w = s * SERVERS + r;
    m = way[w].op[0];
    i = 1;
    do :: i < way[w].n -> way[w].op[i-1] = way[w].op[i]; i++ :: else -> break od;
    way[w].n--;
    way[w].op[way[w].n] = 0;
    apply(r, m);
    printf("@ arrive %d %d %d\n", s, r, m)
}

/* One state for what nobody can tell apart: drop what can no longer change anything where it arrives, forget operations
   that nobody refers to, close the gaps in the numbers. */
inline tidy() {
    w = 0;
    do
    :: w < SERVERS * SERVERS ->
        j = 0; i = 0;
        do
        :: i < way[w].n ->
            if :: MATTERS(way[w].op[i], w % SERVERS) -> way[w].op[j] = way[w].op[i]; j++ :: else fi;
            i++
        :: else -> break
        od;
        way[w].n = j;
        do :: j < i -> way[w].op[j] = 0; j++ :: else -> break od;
        i = 0;
        do :: i < way[w].n -> live[way[w].op[i]] = 1; i++ :: else -> break od;
        w++
    :: else -> break
    od;
    i = 0;
    do :: i < SERVERS -> live[marker[i]] = 1; live[password[i]] = 1; live[expiry[i]] = 1; i++ :: else -> break od;
    i = 0;
    do :: i < CONSUMERS -> live[consumer[i].base] = 1; live[consumer[i].proof] = 1; i++ :: else -> break od;
    i = ops;
    do :: i > 0 -> if :: live[i] -> live[op_base[i]] = 1 :: else fi; i-- :: else -> break od;
    live[0] = 0; j = 0; i = 1;
    do
    :: i <= ops ->
        if
        :: live[i] ->
            j++; live[i] = j;       /* from here on: its new number */
            op_event[j] = op_event[i]; op_flag[j] = op_flag[i]; op_base[j] = live[op_base[i]]
        :: else -> printf("@ forgotten %d\n", i)
        fi;
        i++
    :: else -> break
    od;
    i = j + 1;
    do :: i <= ops -> op_event[i] = 0; op_flag[i] = 0; op_base[i] = 0; i++ :: else -> break od;
    ops = j;
    i = 0;
    do
    :: i < SERVERS -> marker[i] = live[marker[i]]; password[i] = live[password[i]]; expiry[i] = live[expiry[i]]; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < CONSUMERS -> consumer[i].base = live[consumer[i].base]; consumer[i].proof = live[consumer[i].proof]; i++
    :: else -> break
    od;
    w = 0;
    do
    :: w < SERVERS * SERVERS ->
        i = 0;
        do :: i < way[w].n -> way[w].op[i] = live[way[w].op[i]]; i++ :: else -> break od;
        w++
    :: else -> break
    od;
    forget_scratch()
}

inline forget_scratch() {
    i = 0;
    do :: i < OPS -> live[i] = 0; i++ :: else -> break od;
    i = 0; j = 0; w = 0; p = 0; m = 0
}
