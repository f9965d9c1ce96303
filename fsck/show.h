/*
 * show.h - what is told of a check: sentences or one JSON object on standard output, and progress.
 */
#ifndef HL_FSCK_SHOW_H
#define HL_FSCK_SHOW_H

#include <stdint.h>
#include <stdio.h>

#include "options.h"

struct show {
    const struct options *options;
    struct hl_progress *progress;
    uint64_t findings; /* told of so far */
    uint64_t mendable; /* of the problems of the first check */
    /* JSON: what was done, an array under way, kept until the findings are complete. */
    FILE *actions;
    char *actions_text;
    size_t actions_len;
    uint64_t action_count;
    unsigned pass; /* 1 for the first check */
    uint64_t last_done;
    uint64_t drawn_ms; /* when progress was last shown */
    size_t drawn;      /* columns of the bar that stand on the terminal */
};

/* false: no memory. */
bool show_begin(struct show *show, const struct options *options, struct hl_progress *progress);
/* Functions for struct hl_check; context is the struct show. */
void show_finding(void *context, const struct hl_finding *finding);
void show_action(void *context, const char *sentence);
void show_tick(void *context);
/* The result: error is that of hl_check(), with err and the holder if it failed. */
void show_end(struct show *show, int error, const struct hl_check_report *report,
              const struct hl_holder *holder, const struct hl_error *err, int status);

#endif
