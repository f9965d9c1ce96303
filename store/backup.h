/*
 * backup.h - DIR/backup: the segments that compaction replaced.
 *
 * backup/run-<k>, k in decimal, lists the files that one compaction put there, a name on each line;
 * it is written before they come. The files of the last options.backups runs are kept. Files that
 * no list names, which a crash or a person left there, belong to the newest run.
 */
#ifndef HL_BACKUP_H
#define HL_BACKUP_H

#include "core.h"

/* A run that is under way; zero it to begin. */
struct backup_run {
    uint64_t number; /* 0: nothing was listed yet */
    char *text;      /* of its list */
    size_t len, capacity;
};

/* Lists a file that is about to come, for good when this returns 0. */
int backup_list(struct hl_store *store, struct backup_run *run, const char *name);
void backup_run_free(struct backup_run *run);
/* Removes what is of runs older than the last `keep`. */
int backup_prune(struct hl_store *store, uint64_t keep);
/* Removes the oldest run's files. -ENOENT: there are none. */
int backup_drop_oldest(struct hl_store *store);
/* The lowest number of a segment that is in a file there; UINT32_MAX: none. *bytes (may be NULL):
 * of all of them. */
int backup_lowest(struct hl_store *store, uint32_t *first, uint64_t *bytes);

#endif
