/* 389 PassSync's algorithm, re-created from what is known of its behaviour; tests/bench/passsync.py says what from where.
 *
 *   passsync URL CA_FILE BIND_DN PASSWORD_FILE SEARCH_BASE new|kept < USER<TAB>PASSWORD lines
 *
 * One thread takes the list's entries one after the other over one connection: search, bind as the user, modify. With
 * `new` each bind has a TLS connection of its own, with `kept` all go over a second one that stays open. Prints how many
 * were modified, matched, deferred and dropped, and the seconds from the first to the last modify.
 */
#define _GNU_SOURCE
#include <ldap.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct change {
    char *user;
    char *password;
};

static struct change *list;
static size_t count;
static const char *url;
static LDAP *kept;

static void check(int code, const char *what)
{
    if (code != LDAP_SUCCESS) {
        fprintf(stderr, "passsync: %s: %s\n", what, ldap_err2string(code));
        exit(1);
    }
}

static void *allocated(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "passsync: no memory\n");
        exit(1);
    }
    return memory;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void read_list(void)
{
    size_t room = 0, size = 0;
    char *text = NULL;
    while (getline(&text, &size, stdin) > 0) {
        text[strcspn(text, "\n")] = '\0';
        char *tab = strchr(text, '\t');
        if (tab == NULL) {
            fprintf(stderr, "passsync: line %zu has no tab\n", count + 1);
            exit(1);
        }
        *tab = '\0';
        if (count == room) {
            room = room ? 2 * room : 1024;
            list = allocated(realloc(list, room * sizeof *list));
        }
        list[count].user = allocated(strdup(text));
        list[count++].password = allocated(strdup(tab + 1));
    }
    free(text);
}

static char *read_password(const char *path)
{
    size_t size = 0;
    char *text = NULL;
    FILE *file = fopen(path, "r");
    if (file == NULL || getline(&text, &size, file) < 0) {
        fprintf(stderr, "passsync: the password file cannot be read\n");
        exit(1);
    }
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static LDAP *opened(void)
{
    LDAP *ldap = NULL;
    int version = LDAP_VERSION3;
    struct timeval patience = {.tv_sec = 30}; /* PassSync has none; an idle benchmark never needs it */
    check(ldap_initialize(&ldap, url), "initialize");
    check(ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &version), "option");
    check(ldap_set_option(ldap, LDAP_OPT_TIMEOUT, &patience), "option");
    return ldap;
}

static int bind_as(LDAP *ldap, const char *dn, char *password)
{
    struct berval credentials = {.bv_val = password, .bv_len = strlen(password)};
    return ldap_sasl_bind_s(ldap, dn, LDAP_SASL_SIMPLE, &credentials, NULL, NULL, NULL);
}

/* "CanBind": the result code of a bind as the user with the new password. */
static int can_bind(const char *dn, char *password)
{
    if (kept != NULL)
        return bind_as(kept, dn, password);
    LDAP *ldap = opened();
    int code = bind_as(ldap, dn, password);
    ldap_unbind_ext_s(ldap, NULL, NULL);
    return code;
}

static bool newer_in_list(size_t place)
{
    for (size_t other = place + 1; other < count; other++)
        if (strcmp(list[other].user, list[place].user) == 0)
            return true;
    return false;
}

enum fate { MODIFIED, MATCHED, DEFERRED, DROPPED };

static enum fate settle(LDAP *ldap, const char *base, size_t place)
{
    char filter[256];
    LDAPMessage *hits = NULL;
    snprintf(filter, sizeof filter, "(ntuserdomainid=%s)", list[place].user);
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
        code = can_bind(dn, list[place].password);
        if (code == LDAP_SUCCESS) {
            fate = MATCHED;
        } else if (code == LDAP_INVALID_CREDENTIALS || code == LDAP_INAPPROPRIATE_AUTH) {
            char *values[] = {list[place].password, NULL};
            LDAPMod change = {.mod_op = LDAP_MOD_REPLACE, .mod_type = "userPassword", .mod_values = values};
            LDAPMod *changes[] = {&change, NULL};
            fate = ldap_modify_ext_s(ldap, dn, changes, NULL, NULL) == LDAP_SUCCESS ? MODIFIED : DEFERRED;
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
    int demand = LDAP_OPT_X_TLS_DEMAND;
    url = argv[1];
    check(ldap_set_option(NULL, LDAP_OPT_X_TLS_CACERTFILE, argv[2]), "CA file");
    check(ldap_set_option(NULL, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand), "option");
    read_list();
    LDAP *ldap = opened();
    check(bind_as(ldap, argv[3], read_password(argv[4])), "bind");
    if (strcmp(argv[6], "kept") == 0)
        kept = opened();
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
