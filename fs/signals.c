/*
 * signals.c - what a FUSE interrupt was for.
 */
#include "signals.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>

static uint64_t bit(int signal)
{
    return UINT64_C(1) << (signal - 1);
}

bool signals_end(pid_t thread)
{
    char path[64], line[256];
    unsigned long long mask;
    uint64_t pending = 0, unheard = 0;
    unsigned found = 0;

    if (thread <= 0)
        return true;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return true;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "SigPnd: %llx", &mask) == 1 || sscanf(line, "ShdPnd: %llx", &mask) == 1) {
            pending |= mask;
            found++;
        } else if (sscanf(line, "SigBlk: %llx", &mask) == 1 ||
                   sscanf(line, "SigIgn: %llx", &mask) == 1) {
            unheard |= mask;
            found++;
        }
    }
    fclose(file);
    if (found != 4)
        return true;
    uint64_t harmless = bit(SIGCHLD) | bit(SIGCONT) | bit(SIGWINCH) | bit(SIGURG) | bit(SIGSTOP) |
                        bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU);
    return (pending & ~unheard & ~harmless) != 0;
}
