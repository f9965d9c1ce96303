#!/usr/bin/env bash
# test_soak.sh - writers, watchers, listers, followers, documents, another user, chmod, commands and unmounts at random:
# nothing hangs, nothing that was acknowledged is lost. SOAK_SECONDS (30) says for how long; `make soak MINUTES=10` sets it.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

t_test "everything at once" python3 "$T_HERE/soak_cases.py" soak "$HOTLOGFS" "$T_DIR/soak" "${SOAK_SECONDS:-30}"
