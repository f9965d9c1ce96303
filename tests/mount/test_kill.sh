#!/usr/bin/env bash
# test_kill.sh - kill -9 of a daemon that is busy with chmod, mkdir and look-ups: it ends, and so does who waits for it.
# ROUNDS (25) says how often.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

t_test "kill -9 amid chmods and requests" python3 "$T_HERE/kill_cases.py" busy "$HOTLOGFS" "$T_DIR/busy" "${ROUNDS:-25}"
