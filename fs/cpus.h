/*
 * cpus.h - how many processors this process may use at once.
 */
#ifndef HL_FS_CPUS_H
#define HL_FS_CPUS_H

/*
 * The number of processors that affinity allows, or less where a quota of a control group (version
 * 1 or 2, its own or of one above it) gives less. What cannot be read limits nothing. At least
 * something above 0.
 */
double cpus_usable(void);

/* The same from files below `proc` (in place of /proc/self) and `groups` (of /sys/fs/cgroup), and
 * without affinity; a very large number: no limit. */
double cpus_by_quota(const char *proc, const char *groups);

#endif
