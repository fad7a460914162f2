/* The directory's own limit: modifies of userPassword by OpenLDAP's C library, nothing else.
 *
 *   limit URL CA_FILE BIND_DN PASSWORD_FILE CONNECTIONS < DN<TAB>PASSWORD lines
 *
 * Every connection is open and bound before the clock starts, and has a thread of its own; each thread takes the next
 * line until there is none. Prints the number of modifies and the seconds they took; exit code 1 after any failure.
 */
#define _GNU_SOURCE
#include <ldap.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct line {
    char *dn;
    char *password;
};

static struct line *lines;
static size_t count;
static atomic_size_t next_line;
static atomic_int failures;
static pthread_barrier_t ready;

static void check(int code, const char *what)
{
    if (code != LDAP_SUCCESS) {
        fprintf(stderr, "limit: %s: %s\n", what, ldap_err2string(code));
        exit(1);
    }
}

static void *allocated(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "limit: no memory\n");
        exit(1);
    }
    return memory;
}

static void read_lines(void)
{
    size_t room = 0, size = 0;
    ssize_t length;
    char *text = NULL;
    while ((length = getline(&text, &size, stdin)) > 0) {
        if (text[length - 1] == '\n')
            text[--length] = '\0';
        char *tab = strchr(text, '\t');
        if (tab == NULL) {
            fprintf(stderr, "limit: line %zu has no tab\n", count + 1);
            exit(1);
        }
        *tab = '\0';
        if (count == room) {
            room = room ? 2 * room : 1024;
            lines = allocated(realloc(lines, room * sizeof *lines));
        }
        lines[count].dn = allocated(strdup(text));
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
        fprintf(stderr, "limit: the password file cannot be read\n");
        exit(1);
    }
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static LDAP *connection(const char *url, const char *dn, char *password)
{
    LDAP *ldap = NULL;
    int version = LDAP_VERSION3;
    struct timeval patience = {.tv_sec = 30};
    struct berval credentials = {.bv_val = password, .bv_len = strlen(password)};
    check(ldap_initialize(&ldap, url), "initialize");
    check(ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &version), "option");
    check(ldap_set_option(ldap, LDAP_OPT_TIMEOUT, &patience), "option");
    check(ldap_sasl_bind_s(ldap, dn, LDAP_SASL_SIMPLE, &credentials, NULL, NULL, NULL), "bind");
    return ldap;
}

static void *work(void *argument)
{
    LDAP *ldap = argument;
    pthread_barrier_wait(&ready);
    for (;;) {
        size_t number = atomic_fetch_add(&next_line, 1);
        if (number >= count)
            return NULL;
        char *values[] = {lines[number].password, NULL};
        LDAPMod change = {.mod_op = LDAP_MOD_REPLACE, .mod_type = "userPassword", .mod_values = values};
        LDAPMod *changes[] = {&change, NULL};
        int code = ldap_modify_ext_s(ldap, lines[number].dn, changes, NULL, NULL);
        if (code != LDAP_SUCCESS && atomic_fetch_add(&failures, 1) == 0)
            fprintf(stderr, "limit: modify: %s\n", ldap_err2string(code));
    }
}

int main(int argc, char **argv)
{
    int connections = argc == 6 ? atoi(argv[5]) : 0;
    if (connections < 1) {
        fprintf(stderr, "usage: limit URL CA_FILE BIND_DN PASSWORD_FILE CONNECTIONS\n");
        return 2;
    }
    int demand = LDAP_OPT_X_TLS_DEMAND;
    check(ldap_set_option(NULL, LDAP_OPT_X_TLS_CACERTFILE, argv[2]), "CA file");
    check(ldap_set_option(NULL, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand), "option");
    read_lines();
    char *password = read_password(argv[4]);
    LDAP **open = allocated(calloc(connections, sizeof *open));
    pthread_t *threads = allocated(calloc(connections, sizeof *threads));
    pthread_barrier_init(&ready, NULL, connections + 1);
    for (int number = 0; number < connections; number++)
        open[number] = connection(argv[1], argv[3], password);
    for (int number = 0; number < connections; number++)
        if (pthread_create(&threads[number], NULL, work, open[number]) != 0) {
            fprintf(stderr, "limit: no thread\n");
            return 1;
        }
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began); /* before the barrier: whoever passes it first is on the clock */
    pthread_barrier_wait(&ready);
    for (int number = 0; number < connections; number++)
        pthread_join(threads[number], NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    for (int number = 0; number < connections; number++)
        ldap_unbind_ext_s(open[number], NULL, NULL);
    printf("%zu %.6f\n", count, (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) / 1e9);
    return atomic_load(&failures) != 0;
}
