/* Who has a node, among many processes with many descriptors.
 *
 * scan NODE ROUNDS [CAMLEASE]    measures; CAMLEASE is the command, which gets a row where it is there
 * scan who NODE                  what a whole process takes that makes one call: prints the holders' ids
 *
 * Starts 1000 processes with 100 descriptors each (character devices, files, pipes, sockets, eventfds), three of which
 * have NODE. Then, in turns: fuser -v NODE, lsof NODE, one whole process of ours, and the call alone. Wall-clock time
 * from the start of a program to its end, and CPU time of all its threads. All have to find the same three processes, or this ends with status 1.
 */
#include "bench.h"

#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define PROCESSES 1000
#define DESCRIPTORS 100
#define HOLDERS 3
#define FUSER_RATIO 5.0 /* targets: so many times as fast as the others */
#define LSOF_RATIO 50.0

extern char **environ;

enum contender { FUSER, LSOF, WHOLE, CALL, COMMAND, CONTENDERS };
static const char *const names[CONTENDERS] = { "fuser -v", "lsof", "camlease, a process", "camlease, the call",
                                               "camlease who" };

/* Process ids, in order. */
struct pids {
    pid_t list[PROCESSES];
    size_t count;
};

static void note(struct pids *pids, long pid)
{
    size_t at = pids->count;
    if (pids->count == PROCESSES)
        die("more process ids than processes");
    for (; at > 0 && pids->list[at - 1] > pid; at--)
        pids->list[at] = pids->list[at - 1];
    pids->list[at] = (pid_t)pid;
    pids->count++;
}

static void must_open(int result)
{
    if (result < 0)
        die("a descriptor for a process that is to be looked through");
}

/* Shared memory that this library has for its own children: no other program would have it. */
static void drop_shared_memory(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, access) == 3 && access[3] == 's')
            munmap((void *)from, to - from);
    }
    if (maps)
        fclose(maps);
}

/* A process of the crowd; it lives until its parent dies. */
__attribute__((noreturn)) static void stand(const char *node, int ready)
{
    int opened = 0, told = DESCRIPTORS + 1, null;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    drop_shared_memory();
    must_open(dup2(ready, told));
    must_open(null = open("/dev/null", O_RDWR));
    /* The numbers run from 0, as those of any program do. */
    for (int fd = 0; fd < told; fd++)
        if (fd != null)
            close(fd);
    dup2(null, 0);
    if (null != 0)
        close(null);
    opened = 1;
    if (node) {
        must_open(open(node, O_RDONLY));
        opened++;
    }
    for (int kind = 0; opened < DESCRIPTORS; kind = (kind + 1) % 5) {
        int pair[2];
        if (opened == DESCRIPTORS - 1 && (kind == 2 || kind == 3))
            continue; /* no room for two */
        switch (kind) {
        case 0:
            must_open(open("/dev/null", O_RDWR));
            opened++;
            break;
        case 1:
            must_open(open("/proc/self/exe", O_RDONLY));
            opened++;
            break;
        case 2:
            must_open(pipe(pair));
            opened += 2;
            break;
        case 3:
            must_open(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
            opened += 2;
            break;
        default:
            must_open(eventfd(0, 0));
            opened++;
        }
    }
    if (write(told, "", 1) != 1)
        _exit(1);
    close(told);
    for (;;)
        pause();
}

/* Starts the crowd; how many there are. */
static unsigned gather(const char *node, struct pids *crowd, struct pids *holders)
{
    struct pollfd told = { .events = POLLIN };
    int ready[2];
    char byte;
    if (pipe(ready))
        die("pipe");
    told.fd = ready[0];
    for (unsigned at = 0; at < PROCESSES; at++) {
        int holds = at % (PROCESSES / HOLDERS) == PROCESSES / HOLDERS / 2;
        pid_t pid = fork();
        if (pid < 0) {
            struct rlimit most = { 0, 0 };
            getrlimit(RLIMIT_NPROC, &most);
            fprintf(stderr, "REDUCED: only %u processes: fork: %s (RLIMIT_NPROC %llu)\n", at, strerror(errno),
                    (unsigned long long)most.rlim_cur);
            break;
        }
        if (pid == 0)
            stand(holds ? node : NULL, ready[1]);
        note(crowd, pid);
        if (holds)
            note(holders, pid);
        /* One by one: what goes wrong with one goes wrong with all, and is told once. */
        while (poll(&told, 1, 100) == 0)
            if (waitpid(pid, NULL, WNOHANG) != 0)
                die("process %d of the crowd ended", (int)pid);
        if (read(ready[0], &byte, 1) != 1)
            die("a process of the crowd");
    }
    close(ready[0]);
    close(ready[1]);
    return (unsigned)crowd->count;
}

static void disperse(const struct pids *crowd)
{
    for (size_t at = 0; at < crowd->count; at++)
        kill(crowd->list[at], SIGKILL);
    for (size_t at = 0; at < crowd->count; at++)
        waitpid(crowd->list[at], NULL, 0);
}

struct cost {
    double wall_ms, cpu_ms;
};

static double cpu_ms(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1e3 +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e3;
}

/* What a program said on its standard output, and what it took. */
static struct cost run(char *const *arguments, char *said, size_t room)
{
    posix_spawn_file_actions_t actions;
    int output[2], status = 0, failed;
    struct rusage usage;
    size_t length = 0;
    ssize_t got;
    pid_t pid;
    int64_t began, ended;
    if (pipe2(output, O_CLOEXEC))
        die("pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    began = now_ns(CLOCK_MONOTONIC);
    failed = posix_spawnp(&pid, arguments[0], &actions, NULL, arguments, environ);
    if (failed) {
        errno = failed;
        die("%s: it could not be started; scripts/install-deps installs it", arguments[0]);
    }
    close(output[1]);
    while ((got = read(output[0], said + length, room - 1 - length)) > 0 || (got < 0 && errno == EINTR))
        length += got > 0 ? (size_t)got : 0;
    while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR)
        continue;
    ended = now_ns(CLOCK_MONOTONIC);
    said[length] = '\0';
    close(output[0]);
    posix_spawn_file_actions_destroy(&actions);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("%s ended with status %#x", arguments[0], (unsigned)status);
    return (struct cost){ (double)(ended - began) / 1e6, cpu_ms(&usage) };
}

/* The process ids in what a contender printed: every number, or the second word of each line after the first. */
static void read_pids(enum contender contender, char *said, const struct pids *crowd, struct pids *found)
{
    char *line, *rest = said;
    if (contender == LSOF) {
        strsep(&rest, "\n");
        while ((line = strsep(&rest, "\n")) != NULL) {
            long pid;
            if (sscanf(line, "%*s %ld", &pid) == 1)
                note(found, pid);
        }
        return;
    }
    /* The command's table is for people: whatever number in it is one of the crowd's. */
    for (char *word = strtok(said, " \t\n,()"); word; word = strtok(NULL, " \t\n,()")) {
        char *end;
        long pid = strtol(word, &end, 10);
        if (end == word || *end != '\0')
            continue;
        if (contender != COMMAND) {
            note(found, pid);
            continue;
        }
        for (size_t at = 0; at < crowd->count; at++)
            if (crowd->list[at] == pid) {
                note(found, pid);
                break;
            }
    }
}

static void who(const char *node, struct pids *found)
{
    camlease_holder_list *list;
    must(camlease_holder_list_new(node, &list), node);
    for (size_t at = 0; at < camlease_holder_list_len(list); at++) {
        camlease_holder holder = CAMLEASE_HOLDER_INIT;
        must(camlease_holder_list_get(list, at, &holder), node);
        note(found, holder.pid);
    }
    must(camlease_holder_list_free(list), node);
}

static struct cost measure(enum contender contender, const char *node, char *command, const struct pids *crowd,
                      struct pids *found)
{
    static char said[1 << 16];
    char *const arguments[CONTENDERS][4] = { [FUSER] = { "fuser", "-v", (char *)node },
                                             [LSOF] = { "lsof", (char *)node },
                                             [WHOLE] = { "/proc/self/exe", "who", (char *)node },
                                             [COMMAND] = { command, "who", (char *)node } };
    struct cost cost;
    if (contender == CALL) {
        int64_t began = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        who(node, found);
        return (struct cost){ (double)(now_ns(CLOCK_MONOTONIC) - began) / 1e6,
                              (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e6 };
    }
    cost = run(arguments[contender], said, sizeof said);
    read_pids(contender, said, crowd, found);
    return cost;
}

static int same(const struct pids *a, const struct pids *b)
{
    return a->count == b->count && memcmp(a->list, b->list, a->count * sizeof *a->list) == 0;
}

static void show(const struct pids *pids)
{
    for (size_t at = 0; at < pids->count; at++)
        fprintf(stderr, " %d", (int)pids->list[at]);
    if (pids->count == 0)
        fprintf(stderr, " none");
}

int main(int argc, char **argv)
{
    static struct series ms[CONTENDERS], cpu[CONTENDERS];
    static struct pids crowd, holders;
    const char *node;
    char *command;
    unsigned rounds, wrong = 0, processes, contenders;
    double ours, fuser, lsof;
    if (argc == 3 && strcmp(argv[1], "who") == 0) {
        who(argv[2], &holders);
        for (size_t at = 0; at < holders.count; at++)
            printf("%d\n", (int)holders.list[at]);
        return 0;
    }
    if (argc < 3 || argc > 4)
        die("usage: scan NODE ROUNDS [CAMLEASE]");
    node = argv[1];
    rounds = number(argv[2]);
    command = argc > 3 && access(argv[3], X_OK) == 0 ? argv[3] : NULL;
    contenders = command ? CONTENDERS : COMMAND;
    processes = gather(node, &crowd, &holders);
    for (unsigned round = 0; round <= rounds; round++)
        for (unsigned turn = 0; turn < contenders; turn++) {
            enum contender contender = (enum contender)((turn + round) % contenders);
            static struct pids found;
            struct cost took;
            found.count = 0;
            took = measure(contender, node, command, &crowd, &found);
            /* The first round makes what the kernel keeps of each descriptor in /proc. */
            if (round > 0) {
                add(&ms[contender], took.wall_ms);
                add(&cpu[contender], took.cpu_ms);
            }
            if (same(&found, &holders))
                continue;
            wrong++;
            fprintf(stderr, "%s found", names[contender]);
            show(&found);
            fprintf(stderr, "; the holders are");
            show(&holders);
            fprintf(stderr, "\n");
        }
    disperse(&crowd);
    printf("%u processes, %u descriptors, %zu holders, user %u, %u rounds\n", processes, processes * DESCRIPTORS,
           holders.count, (unsigned)geteuid(), rounds);
    printf("%-22s %10s %10s %10s %10s\n", "ms", "median", "p90", "least", "CPU");
    for (unsigned contender = 0; contender < contenders; contender++)
        printf("%-22s %10.1f %10.1f %10.1f %10.1f\n", names[contender], median(&ms[contender]),
               quantile(&ms[contender], 0.9), quantile(&ms[contender], 0), median(&cpu[contender]));
    ours = median(&ms[WHOLE]);
    fuser = median(&ms[FUSER]) / ours;
    lsof = median(&ms[LSOF]) / ours;
    printf("fuser / a process of ours: %.2f (target: at least %.0f, %s)\n", fuser, FUSER_RATIO,
           verdict(FUSER_RATIO, fuser));
    printf("lsof / a process of ours: %.2f (target: at least %.0f, %s)\n", lsof, LSOF_RATIO, verdict(LSOF_RATIO, lsof));
    printf("CPU time: fuser / ours %.2f, lsof / ours %.2f\n", median(&cpu[FUSER]) / median(&cpu[WHOLE]),
           median(&cpu[LSOF]) / median(&cpu[WHOLE]));
    printf("same holders: %s\n", wrong ? "no" : "yes, in every round");
    return wrong ? 1 : 0;
}
