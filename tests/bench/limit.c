/* The directory's own limit: modifies of userPassword by OpenLDAP's C library, nothing else.
 *
 *   limit URL CA_FILE BIND_DN PASSWORD_FILE CONNECTIONS < DN<TAB>PASSWORD lines
 *
 * Every connection is open and bound before the clock starts, and has a thread of its own; each thread takes the next
 * line until there is none. Prints the number of modifies and the seconds they took; exit code 1 after any failure.
 */
#define _GNU_SOURCE
#define PROGRAM "limit"
#include "ldap_client.h"
#include <pthread.h>
#include <stdatomic.h>

static atomic_size_t next_line;
static atomic_int failures;
static pthread_barrier_t ready;

static void *work(void *argument)
{
    LDAP *ldap = argument;
    pthread_barrier_wait(&ready);
    for (;;) {
        size_t number = atomic_fetch_add(&next_line, 1);
        if (number >= count)
            return NULL;
        int code = change_password(ldap, lines[number].key, lines[number].password);
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
    trust(argv[2]);
    read_lines();
    char *password = read_password(argv[4]);
    LDAP **open = allocated(calloc(connections, sizeof *open));
    pthread_t *threads = allocated(calloc(connections, sizeof *threads));
    pthread_barrier_init(&ready, NULL, connections + 1);
    for (int number = 0; number < connections; number++)
        check(bind_as(open[number] = opened(argv[1]), argv[3], password), "bind");
    for (int number = 0; number < connections; number++)
        if (pthread_create(&threads[number], NULL, work, open[number]) != 0) {
            fprintf(stderr, "limit: no thread\n");
            return 1;
        }
    double began = now(); /* before the barrier: whoever passes it first is on the clock */
    pthread_barrier_wait(&ready);
    for (int number = 0; number < connections; number++)
        pthread_join(threads[number], NULL);
    double seconds = now() - began;
    for (int number = 0; number < connections; number++)
        ldap_unbind_ext_s(open[number], NULL, NULL);
    printf("%zu %.6f\n", count, seconds);
    return atomic_load(&failures) != 0;
}
