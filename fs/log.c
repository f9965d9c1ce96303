/* log.c - where the daemon's messages go. */
#include "fs.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>

/* The one global of fs/: messages come from every thread, many without a context. */
static _Atomic bool to_syslog;

void fs_log_open(bool foreground)
{
    if (!foreground)
        openlog("hotlogfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    atomic_store(&to_syslog, !foreground);
}

static int priority(enum hl_severity severity)
{
    switch (severity) {
    case HL_ERROR:
        return LOG_ERR;
    case HL_WARNING:
        return LOG_WARNING;
    case HL_INFO:
        break;
    }
    return LOG_INFO;
}

void fs_log(enum hl_severity severity, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    if (atomic_load(&to_syslog))
        syslog(priority(severity), "%s", text);
    else
        fprintf(stderr, "hotlogfs: %s\n", text); /* one call: lines of two threads do not mix */
}
