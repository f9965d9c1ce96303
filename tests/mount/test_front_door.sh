#!/usr/bin/env bash
# What a newcomer does first: the tour in README.md as it stands, and scripts/run.
. "$(dirname "$0")/lib.sh"

tour()
{
    t_mount
    cd "$T_HOME"
    # The block must be found, and each of its lines succeeds.
    sed -n '/^## A tour/,/^## /{/^```sh$/,/^```$/{/^```/!p}}' "$T_ROOT/README.md" >tour.sh
    [ "$(wc -l <tour.sh)" -gt 10 ] || t_fail "no tour in README.md"
    # mnt is where scripts/run mounts, and the harness as well.
    t_run bash -euo pipefail tour.sh
    echo "$T_OUT"
    t_eq "$T_STATUS" 0 "exit status of the tour"
    t_match "$T_OUT" 'It became record 6\.' "the tour's output"
    t_match "$T_OUT" 'tokens_in.* must be an integer' "the tour's output"
    t_match "$T_OUT" '"damaged_gaps":0' "the tour's output"
    t_match "$T_OUT" 'Records stay\.' "the tour's output"
    t_unmount
}
t_test "the tour in README.md works when pasted" tour

# In a copy of the tree, with the program in place: what is tested is what the script does with it.
run_script()
{
    t_use run
    mkdir -p "$T_HOME/tree/scripts" "$T_HOME/tree/build"
    cp "$T_ROOT/scripts/run" "$T_HOME/tree/scripts/"
    printf '#!/bin/sh\n' >"$T_HOME/tree/scripts/install-deps"
    chmod +x "$T_HOME/tree/scripts/install-deps"
    printf 'all:\n\t@echo making\n' >"$T_HOME/tree/Makefile"
    ln -s "$HOTLOGFS" "$T_HOME/tree/build/hotlogfs"
    MNT=$T_HOME/tree/mnt
    DIR=$T_HOME/tree/data
    t_defer t_abandon "$T_HOME" "$MNT"
    # The program is found by the name that the script starts it by.
    HOTLOGFS=tree/build/hotlogfs
    cd "$T_HOME"
    t_run tree/scripts/run
    echo "$T_OUT"
    t_eq "$T_STATUS" 0 "exit status"
    t_daemon_of_mount >"$T_HOME/pid" || t_daemon_by_lock
    t_is_live || t_fail "not mounted"
    t_match "$T_OUT" '\$ tree/build/hotlogfs tree/data tree/mnt' "what it shows"
    t_match "$T_OUT" '"seq":1,.*"payload":"hello, log"' "what it shows"
    t_match "$T_OUT" 'fusermount3 -u tree/mnt' "how to unmount"
    t_run tree/scripts/run
    t_eq "$T_STATUS" 0 "exit status of a second run"
    t_match "$T_OUT" 'mounted already' "what a second run says"
    t_match "$T_OUT" 'demo-2/1' "what a second run shows"
    # Left dead by a crash, it is mounted again.
    kill -9 "$(cat "$T_HOME/pid")"
    t_run tree/scripts/run
    echo "$T_OUT"
    t_eq "$T_STATUS" 0 "exit status after a crash"
    t_match "$T_OUT" 'demo-3/1' "what it shows after a crash"
    t_daemon_by_lock
    t_wait t_fusermount
    t_wait t_gone "$(cat "$T_HOME/pid")"
}
t_daemon_by_lock() { cut -d' ' -f1 "$DIR/lock" >"$T_HOME/pid"; }
t_test "scripts/run mounts, shows records, and can be run again" run_script
