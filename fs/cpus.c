/*
 * cpus.c - see cpus.h.
 *
 * /proc/self/cgroup names the control group in each hierarchy, as it is seen from the namespace's
 * root: "0::/user/x" for version 2, "4:cpu,cpuacct:/user/x" for version 1, mounted by the names of
 * its controllers. A quota of a group above binds as well.
 */
#include "cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NO_LIMIT 1e9

/* The first line of a file; false: there is none. */
static bool read_line(const char *dir, const char *name, char *line, size_t size)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool got = fgets(line, (int)size, file) != NULL;
    fclose(file);
    return got;
}

static double ratio(double quota, double period)
{
    return quota > 0 && period > 0 ? quota / period : NO_LIMIT;
}

/* What one directory of a hierarchy says. */
static double quota_here(const char *dir, bool version_2)
{
    char line[128], *end;
    if (version_2) {
        if (!read_line(dir, "cpu.max", line, sizeof line) || line[0] == 'm') /* "max 100000" */
            return NO_LIMIT;
        double quota = strtod(line, &end);
        return ratio(quota, strtod(end, NULL));
    }
    if (!read_line(dir, "cpu.cfs_quota_us", line, sizeof line)) /* -1: none */
        return NO_LIMIT;
    double quota = strtod(line, NULL);
    if (!read_line(dir, "cpu.cfs_period_us", line, sizeof line))
        return NO_LIMIT;
    return ratio(quota, strtod(line, NULL));
}

/* The least of a group's quota and those of all above it, up to where the hierarchy is mounted. */
static double least_quota(const char *mount, const char *group, bool version_2)
{
    char dir[PATH_MAX];
    double least = NO_LIMIT;
    size_t top = strlen(mount);
    if (snprintf(dir, sizeof dir, "%s%s", mount, group) >= (int)sizeof dir)
        return NO_LIMIT;
    for (;;) {
        double quota = quota_here(dir, version_2);
        if (quota < least)
            least = quota;
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < top)
            return least;
        *slash = '\0';
    }
}

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; *at;) {
        size_t part = strcspn(at, ",");
        if (part == len && memcmp(at, word, len) == 0)
            return true;
        at += part + (at[part] == ',');
    }
    return false;
}

double cpus_by_quota(const char *proc, const char *groups)
{
    char path[PATH_MAX], line[PATH_MAX], mount[PATH_MAX];
    double least = NO_LIMIT;
    if (snprintf(path, sizeof path, "%s/cgroup", proc) >= (int)sizeof path)
        return NO_LIMIT;
    FILE *file = fopen(path, "re");
    if (!file)
        return NO_LIMIT;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *controllers++ = '\0';
        *group++ = '\0';
        bool version_2 = *controllers == '\0';
        if (!version_2 && !has_word(controllers, "cpu"))
            continue;
        int n = version_2 ? snprintf(mount, sizeof mount, "%s", groups)
                          : snprintf(mount, sizeof mount, "%s/%s", groups, controllers);
        if (n >= (int)sizeof mount)
            continue;
        double quota = least_quota(mount, group, version_2);
        if (quota < least)
            least = quota;
    }
    fclose(file);
    return least;
}

double cpus_usable(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    double count = online > 0 ? (double)online : 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        count = CPU_COUNT(&set);
    double quota = cpus_by_quota("/proc/self", "/sys/fs/cgroup");
    return quota < count ? quota : count;
}
