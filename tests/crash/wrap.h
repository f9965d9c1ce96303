/* wrap.h - what record.c and wrap.c share. */
#ifndef CRASH_WRAP_H
#define CRASH_WRAP_H

#include "record.h"

/* Wrapped functions act on this record from now on; the seed is that of all chance. */
void wrap_begin(struct record *record, uint64_t seed);
void wrap_end(void);
/* Between these two the calling thread works for the tests, not for the store. */
void wrap_enter(void);
void wrap_leave(void);

/* With the record's lock held. */
void record_add(struct record *record, const struct call *call);
int64_t record_time(int fd); /* gives the file a time of its own, in ns */
bool record_kills(struct record *record, const char *what); /* the process is dead from now on */
uint32_t record_make(struct record *record, uint32_t parent, const char *name, bool directory);

#endif
