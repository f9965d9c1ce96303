/* holder.c - opening a store that another daemon may be about to let go. */
#include "holder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "mount.h"
#include "serve.h"

#define WAIT_MS 30000
#define WAIT_DEAD_MS 3000 /* a process is gone, and the kernel still closes its files */
#define RETRY_MS 10
#define CLOSING "closing"

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Whether no process has this pid, or it is dying. */
static bool is_dead(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return errno == ENOENT;
    bool read = fgets(line, sizeof(line), file) != NULL;
    fclose(file);
    if (!read)
        return true; /* it went while we looked */
    /* The state follows the name, which may hold any byte but is in parentheses. */
    const char *name_end = strrchr(line, ')');
    return name_end != NULL && name_end[1] == ' ' && strchr("ZXx", name_end[2]) != NULL;
}

/* For how long a holder is worth waiting for. */
static uint64_t patience_ms(const char *dir, const struct hl_holder *holder)
{
    unsigned major_number, minor_number;
    if (strcmp(holder->note, CLOSING) == 0)
        return WAIT_MS;
    /* Unmounted, but it has not noticed yet. */
    if (sscanf(holder->note, "mounted %u:%u", &major_number, &minor_number) == 2 &&
        mount_is_present(makedev(major_number, minor_number), dir) == 0)
        return WAIT_MS;
    /* Nobody, or nobody alive: a lock just taken or just let go, whose file does not say so yet. */
    if (holder->pid <= 0 || is_dead(holder->pid))
        return WAIT_DEAD_MS;
    return 0;
}

int holder_open_store(const char *dir, const struct hl_options *options, struct hl_store **store,
                      struct hl_error *err)
{
    uint64_t began = now_ms();
    for (;;) {
        struct hl_holder holder = {0};
        int result = hl_store_open(dir, options, store, &holder, err);
        if (result != -EBUSY)
            return result;
        if (now_ms() - began >= patience_ms(dir, &holder))
            return result;
        if (serve_stop_asked(RETRY_MS))
            return hl_fail(err, EINTR, "stopped while waiting for process %d to let go of %s",
                           (int)holder.pid, dir);
    }
}

static void note(struct hl_store *store, const char *text)
{
    int result = hl_store_note(store, text);
    if (result != 0)
        fs_log(HL_WARNING, "cannot write the lock file: %s", strerror(-result));
}

void holder_note_mounted(struct hl_store *store, dev_t device)
{
    char text[64];
    snprintf(text, sizeof(text), "mounted %u:%u", major(device), minor(device));
    note(store, text);
}

void holder_note_closing(struct hl_store *store)
{
    note(store, CLOSING);
}
