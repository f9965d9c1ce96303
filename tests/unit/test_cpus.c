/* test_cpus.c - quotas of control groups, from files made here. */
#include <sys/stat.h>

#include "../../fs/cpus.h"
#include "support.h"

#define UNLIMITED 1e6 /* more than any quota of these tests */

static char top[T_PATH], proc[T_PATH], groups[T_PATH];

static int setup(void **state)
{
    (void)state;
    t_dir_make(top);
    t_path(proc, top, "proc");
    t_path(groups, top, "groups");
    return mkdir(proc, 0700) != 0 || mkdir(groups, 0700) != 0;
}

static int teardown(void **state)
{
    (void)state;
    t_dir_remove(top);
    return 0;
}

static void put(const char *dir, const char *path, const char *text)
{
    char whole[T_PATH];
    t_path(whole, dir, "%s", path);
    for (char *slash = whole + strlen(dir) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    t_file_write(whole, text, strlen(text));
}

static double quota(void)
{
    return cpus_by_quota(proc, groups);
}

static void test_nothing_there(void **state)
{
    (void)state;
    assert_true(quota() > UNLIMITED);
    put(proc, "cgroup", "0::/a\n");
    assert_true(quota() > UNLIMITED);
    put(proc, "cgroup", "no colons here\n:\n::\n0::\n");
    assert_true(quota() > UNLIMITED);
}

static void test_version_2(void **state)
{
    (void)state;
    put(proc, "cgroup", "0::/a/b\n");
    put(groups, "a/b/cpu.max", "max 100000\n");
    assert_true(quota() > UNLIMITED);
    put(groups, "a/b/cpu.max", "150000 100000\n");
    assert_true(quota() == 1.5);
    put(groups, "a/cpu.max", "50000 100000\n"); /* binds those below */
    assert_true(quota() == 0.5);
    put(groups, "cpu.max", "20000 100000\n"); /* a container's own root */
    assert_true(quota() == 0.2);
    put(top, "cpu.max", "10000 100000\n"); /* outside of the hierarchy */
    assert_true(quota() == 0.2);
}

static void test_version_1(void **state)
{
    (void)state;
    put(proc, "cgroup", "5:memory:/m\n4:cpu,cpuacct:/a\n3:cpuset:/s\n");
    put(groups, "memory/m/cpu.cfs_quota_us", "1\n");
    put(groups, "cpuset/s/cpu.cfs_quota_us", "1\n");
    put(groups, "cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
    put(groups, "cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    assert_true(quota() > UNLIMITED);
    put(groups, "cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
    assert_true(quota() == 3);
    put(groups, "cpu,cpuacct/cpu.cfs_quota_us", "100000\n");
    put(groups, "cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_true(quota() == 1);
}

static void test_nonsense(void **state)
{
    (void)state;
    put(proc, "cgroup", "0::/a\n");
    static const char *const texts[] = {"",      "\n",  "x\n",       "-5 100000\n",
                                        "5 0\n", "5\n", "0 100000\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put(groups, "a/cpu.max", texts[i]);
        assert_true(quota() > UNLIMITED);
    }
}

static void test_usable(void **state)
{
    (void)state;
    assert_true(cpus_usable() > 0);
    assert_true(cpus_usable() <= cpus_by_quota("/proc/self", "/sys/fs/cgroup"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test(test_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
