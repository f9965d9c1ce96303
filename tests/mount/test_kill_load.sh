#!/usr/bin/env bash
# test_kill_load.sh - kill -9 under load, also of the next start: what was acknowledged is there, in order, once.
#
# ROUNDS: how often the daemon is killed under load (50).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

ROUNDS=${ROUNDS:-50}
SMALL=segment_size=64K,sync_interval=10ms

# Ten rounds go to one store, each on top of what the others left.
one_kill()
{
    local round=$1 options=$SMALL journal
    export SEED=$SEED-$round
    t_use "load-$(((round - 1) / 10))"
    journal=$T_HOME/journal
    case $((round % 4)) in
        1) options=segment_size=256K,sync_interval=1s ;;
        2) options=segment_size=64K,sync ;;
    esac
    t_mount -o "$options"
    python3 "$T_HERE/crash_load.py" load "$MNT" "$journal" "$DAEMON_PID"
    t_wait_end 137
    [ $((round % 3)) != 0 ] || kill_at_start
    t_mount -o "$options"
    python3 "$T_HERE/crash_load.py" check "$MNT" "$journal"
    if [ $((round % 5)) = 0 ]; then
        t_unmount # a clean end now and then, and what was made of it
        t_mount -o "$options"
        python3 "$T_HERE/crash_load.py" check "$MNT" "$journal"
    fi
    if [ $((round % 10)) = 0 ]; then
        t_unmount
        rm -r "$DIR"
    elif [ $((round % 2)) = 0 ]; then
        t_kill9
    else
        t_unmount
    fi
}

# Killed again at some moment of its start, recovery included.
kill_at_start()
{
    local pid
    "$HOTLOGFS" "$DIR" "$MNT" -f -o "$SMALL" </dev/null >>"$t_log" 2>&1 &
    pid=$!
    sleep "0.0$((RANDOM % 9))$((RANDOM % 9))" # a moment at random, not a wait
    kill -9 "$pid" || true
    wait "$pid" || true
}

for ((round = 1; round <= ROUNDS; round++)); do
    t_test "kill -9 under load, round $round" one_kill "$round"
    [ "$T_FAILED" = 0 ] || break # what comes after would be measured by what this one left
done
