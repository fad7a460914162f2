/* What the two small LDAP clients share: their lines, the password file, a connection. Define PROGRAM before. */
#ifndef LDAP_CLIENT_H
#define LDAP_CLIENT_H
#include <ldap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One line of standard input: KEY<TAB>PASSWORD. */
struct line {
    char *key;
    char *password;
};

static struct line *lines;
static size_t count;

static void check(int code, const char *what)
{
    if (code != LDAP_SUCCESS) {
        fprintf(stderr, PROGRAM ": %s: %s\n", what, ldap_err2string(code));
        exit(1);
    }
}

static void *allocated(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, PROGRAM ": no memory\n");
        exit(1);
    }
    return memory;
}

/* CLOCK_MONOTONIC in seconds. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void read_lines(void)
{
    size_t room = 0, size = 0;
    char *text = NULL;
    while (getline(&text, &size, stdin) > 0) {
        text[strcspn(text, "\n")] = '\0';
        char *tab = strchr(text, '\t');
        if (tab == NULL) {
            fprintf(stderr, PROGRAM ": line %zu has no tab\n", count + 1);
            exit(1);
        }
        *tab = '\0';
        if (count == room) {
            room = room ? 2 * room : 1024;
            lines = allocated(realloc(lines, room * sizeof *lines));
        }
        lines[count].key = allocated(strdup(text));
        lines[count++].password = allocated(strdup(tab + 1));
    }
    free(text);
}

static char *read_password(const char *path)
{
    size_t size = 0;
    char *text = NULL;
    FILE *file = fopen(path, "r");
    if (file == NULL || getline(&text, &size, file) < 0) {
        fprintf(stderr, PROGRAM ": the password file cannot be read\n");
        exit(1);
    }
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* Every connection trusts this CA alone, and none without it. */
static void trust(const char *ca_file)
{
    int demand = LDAP_OPT_X_TLS_DEMAND;
    check(ldap_set_option(NULL, LDAP_OPT_X_TLS_CACERTFILE, ca_file), "CA file");
    check(ldap_set_option(NULL, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand), "option");
}

/* A connection that gives up after 30 s: PassSync has no such limit, and an idle benchmark never needs one. */
static LDAP *opened(const char *url)
{
    LDAP *ldap = NULL;
    int version = LDAP_VERSION3;
    struct timeval patience = {.tv_sec = 30};
    check(ldap_initialize(&ldap, url), "initialize");
    check(ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &version), "option");
    check(ldap_set_option(ldap, LDAP_OPT_TIMEOUT, &patience), "option");
    return ldap;
}

/* The result code of a simple bind. */
static int bind_as(LDAP *ldap, const char *dn, char *password)
{
    struct berval credentials = {.bv_val = password, .bv_len = strlen(password)};
    return ldap_sasl_bind_s(ldap, dn, LDAP_SASL_SIMPLE, &credentials, NULL, NULL, NULL);
}

/* The result code of a modify that replaces userPassword, and nothing else. */
static int change_password(LDAP *ldap, const char *dn, char *password)
{
    char *values[] = {password, NULL};
    LDAPMod change = {.mod_op = LDAP_MOD_REPLACE, .mod_type = "userPassword", .mod_values = values};
    LDAPMod *changes[] = {&change, NULL};
    return ldap_modify_ext_s(ldap, dn, changes, NULL, NULL);
}
#endif
