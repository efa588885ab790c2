/* Evicts by the C face, and prints what came of it: "status NAME", "error WORDS" where it failed, and for each holder
 * "holder PID UID OUTCOME CONDITION REASON".
 *
 * evict URI WHAT [GRACE_MS [FLAGS]]
 *   plain    does that
 *   null     without options
 *   self     has opened the camera
 *   nobody   is user 65534
 *   no_kill  has no CAP_KILL
 *   no_pidfd the kernel gives it no pidfd
 *   inside   is in a pid namespace of its own, with the /proc of the one outside
 *   container is in a pid namespace of its own, with its own /proc
 *   cancel   another thread cancels it after 200 ms
 *   shutdown another thread shuts the library down after 200 ms
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "camlease.h"

static camlease_cancel *cancel;

static void check(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "evict: %s: %s (%s)\n", what, camlease_last_error_message(), strerror(errno));
    exit(2);
}

static void drop_cap_kill(void)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    check(syscall(SYS_capget, &header, data) == 0, "capget");
    data[0].effective &= ~(1u << CAP_KILL);
    check(syscall(SYS_capset, &header, data) == 0, "capset");
}

static void refuse_pidfds(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
    check(syscall(SYS_pidfd_open, getpid(), 0) == -1 && errno == ENOSYS, "the filter");
}

static void *end_it(void *what)
{
    usleep(200000);
    check((strcmp(what, "cancel") == 0 ? camlease_cancel_signal(cancel) : camlease_shutdown()) == CAMLEASE_OK, what);
    return NULL;
}

int main(int argc, char **argv)
{
    camlease_evict_options options = CAMLEASE_EVICT_OPTIONS_INIT;
    camlease_holder_list *list = (camlease_holder_list *)&options; /* to see it become NULL */
    camlease_camera *camera;
    camlease_status status;
    pthread_t thread;
    const char *what;
    if (argc < 3)
        return 1;
    what = argv[2];
    options.grace_ms = argc > 3 ? atoi(argv[3]) : options.grace_ms;
    options.flags = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 0) : 0;
    options.name = "the test";
    if (strcmp(what, "self") == 0)
        check(camlease_camera_open(argv[1], NULL, &camera) == CAMLEASE_OK, "open");
    if (strcmp(what, "nobody") == 0)
        check(setgid(65534) == 0 && setuid(65534) == 0, "setuid");
    if (strcmp(what, "no_kill") == 0)
        drop_cap_kill();
    if (strcmp(what, "no_pidfd") == 0)
        refuse_pidfds();
    if (strcmp(what, "inside") == 0 || strcmp(what, "container") == 0) {
        int ended;
        pid_t child;
        check(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0, "unshare");
        check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount");
        child = fork();
        if (child) {
            waitpid(child, &ended, 0);
            return WIFEXITED(ended) ? WEXITSTATUS(ended) : 3;
        }
        check(strcmp(what, "inside") == 0 || mount("proc", "/proc", "proc", 0, NULL) == 0, "mount of /proc");
    }
    if (strcmp(what, "cancel") == 0) {
        check(camlease_cancel_new(&cancel) == CAMLEASE_OK, "cancel");
        options.cancel = cancel;
    }
    if (strcmp(what, "cancel") == 0 || strcmp(what, "shutdown") == 0)
        check(pthread_create(&thread, NULL, end_it, argv[2]) == 0, "thread");

    status = camlease_evict(argv[1], strcmp(what, "null") == 0 ? NULL : &options, &list);
    printf("status %s\n", camlease_status_name(status));
    if (status) {
        printf("error %s\n", camlease_last_error_message());
        return list ? 4 : 0;
    }
    for (size_t i = 0; i < camlease_holder_list_len(list); i++) {
        camlease_holder holder = CAMLEASE_HOLDER_INIT;
        check(camlease_holder_list_get(list, i, &holder) == CAMLEASE_OK, "get");
        printf("holder %d %u %u %u %s\n", (int)holder.pid, holder.uid, holder.outcome, holder.condition, holder.reason);
    }
    check(camlease_holder_list_free(list) == CAMLEASE_OK, "free");
    return 0;
}
