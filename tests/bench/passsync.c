/* 389 PassSync's algorithm, re-created from what is known of its behaviour; tests/bench/passsync.py says what from where.
 *
 *   passsync URL CA_FILE BIND_DN PASSWORD_FILE SEARCH_BASE new|kept < USER<TAB>PASSWORD lines
 *
 * One thread takes the list's entries one after the other over one connection: search, bind as the user, modify. With
 * `new` each bind has a TLS connection of its own, with `kept` all go over a second one that stays open. Prints how many
 * were modified, matched, deferred and dropped, and the seconds from the first to the last modify.
 */
#define _GNU_SOURCE
#define PROGRAM "passsync"
#include "ldap_client.h"
#include <stdbool.h>

static const char *url;
static LDAP *kept;

/* "CanBind": the result code of a bind as the user with the new password. */
static int can_bind(const char *dn, char *password)
{
    if (kept != NULL)
        return bind_as(kept, dn, password);
    LDAP *ldap = opened(url);
    int code = bind_as(ldap, dn, password);
    ldap_unbind_ext_s(ldap, NULL, NULL);
    return code;
}

static bool newer_in_list(size_t place)
{
    for (size_t other = place + 1; other < count; other++)
        if (strcmp(lines[other].key, lines[place].key) == 0)
            return true;
    return false;
}

enum fate { MODIFIED, MATCHED, DEFERRED, DROPPED };

static enum fate settle(LDAP *ldap, const char *base, size_t place)
{
    char filter[256];
    LDAPMessage *hits = NULL;
    snprintf(filter, sizeof filter, "(ntuserdomainid=%s)", lines[place].key);
    int code = ldap_search_ext_s(ldap, base, LDAP_SCOPE_SUBTREE, filter, NULL, 0, NULL, NULL, NULL, 0, &hits);
    LDAPMessage *hit = code == LDAP_SUCCESS ? ldap_first_entry(ldap, hits) : NULL;
    if (hit == NULL) {
        ldap_msgfree(hits);
        return DEFERRED;
    }
    char *dn = allocated(ldap_get_dn(ldap, hit));
    bool several = ldap_next_entry(ldap, hit) != NULL;
    ldap_msgfree(hits);
    enum fate fate = DROPPED;
    if (!newer_in_list(place) && !several) {
        code = can_bind(dn, lines[place].password);
        if (code == LDAP_SUCCESS) {
            fate = MATCHED;
        } else if (code == LDAP_INVALID_CREDENTIALS || code == LDAP_INAPPROPRIATE_AUTH) {
            fate = change_password(ldap, dn, lines[place].password) == LDAP_SUCCESS ? MODIFIED : DEFERRED;
        } else {
            fate = DEFERRED;
        }
    }
    ldap_memfree(dn);
    return fate;
}

int main(int argc, char **argv)
{
    if (argc != 7 || (strcmp(argv[6], "new") != 0 && strcmp(argv[6], "kept") != 0)) {
        fprintf(stderr, "usage: passsync URL CA_FILE BIND_DN PASSWORD_FILE SEARCH_BASE new|kept\n");
        return 2;
    }
    url = argv[1];
    trust(argv[2]);
    read_lines();
    LDAP *ldap = opened(url);
    check(bind_as(ldap, argv[3], read_password(argv[4])), "bind");
    if (strcmp(argv[6], "kept") == 0)
        kept = opened(url);
    size_t fates[4] = {0};
    double first = 0, last = 0;
    for (size_t place = 0; place < count; place++) {
        enum fate fate = settle(ldap, argv[5], place);
        fates[fate]++;
        if (fate == MODIFIED) {
            last = now();
            first = first == 0 ? last : first;
        }
    }
    if (kept != NULL)
        ldap_unbind_ext_s(kept, NULL, NULL);
    ldap_unbind_ext_s(ldap, NULL, NULL);
    printf("%zu %zu %zu %zu %.6f\n", fates[MODIFIED], fates[MATCHED], fates[DEFERRED], fates[DROPPED], last - first);
    return 0;
}
