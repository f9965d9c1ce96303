#!/usr/bin/env bash
# test_fuzz.sh - hostile bytes for each parser, FUZZ_SECONDS (60) each: see tests/fuzz. `make fuzz SECONDS=3600` for hours.
# Built by clang whatever the rest was built by; under a sanitizer's build of the rest it is not run again, but for what
# is kept of earlier runs.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs() { make -s -C "$T_ROOT" FUZZ_BUILD=build-fuzz fuzz-programs; }

# One at a time: another test runs beside this one.
target() { JOBS=${FUZZ_JOBS:-1} "$T_ROOT/tests/fuzz/run" "$seconds" "$1"; }

seconds=${FUZZ_SECONDS:-60}
case ${BUILD:-build} in
*-address* | *-undefined* | *-thread*) seconds=${FUZZ_SECONDS:-1} ;;
esac

t_test "the targets can be built" programs
for source in "$T_ROOT"/tests/fuzz/fuzz_*.c; do
    name=${source##*/fuzz_}
    t_test "fuzz ${name%.c}" target "${name%.c}"
done
