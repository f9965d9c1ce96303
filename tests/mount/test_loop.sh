#!/usr/bin/env bash
# The request loop: threads that wait for a disk hold nobody else up, an idle mount rests, and every
# thread ends.
. "$(dirname "$0")/lib.sh"

# A store on a file system of its own, which can be frozen: then whoever writes to it waits.
frozen=$T_DIR/frozen
truncate -s 96M "$T_DIR/disk.img"
mkfs.ext4 -q -O ^has_journal "$T_DIR/disk.img"
mkdir "$frozen"
mount "$(t_loop "$T_DIR/disk.img")" "$frozen"
t_defer umount "$frozen"
t_defer thaw_if_frozen

thaw_if_frozen() { fsfreeze --unfreeze "$frozen" 2>/dev/null || true; }

# Nanoseconds for which the daemon's threads ran; but for the first one, which every mount on the machine wakes, and for
# what naps on a clock, as a sanitizer's own thread does and none of ours.
time_used()
{
    local task sum=0 ran
    for task in /proc/"$DAEMON_PID"/task/*; do
        [ "${task##*/}" != "$DAEMON_PID" ] || continue
        [[ $(cat "$task/wchan" 2>/dev/null) != *nanosleep* ]] || continue
        read -r ran _ <"$task/schedstat" || continue
        sum=$((sum + ran))
    done
    echo "$sum"
}

rests()
{
    local before
    before=$(time_used)
    sleep 0.2
    [ "$(time_used)" = "$before" ]
}

comes_to_rest()
{
    seq 200 | while read -r n; do echo "$n" >"$MNT/sessions/s/append"; done
    t_wait rests
}

# How many threads of the daemon wait in the kernel for the frozen file system.
blocked()
{
    local task count=0
    for task in /proc/"$DAEMON_PID"/task/*; do
        [ "$(awk '/^State:/ { print $2 }' "$task/status" 2>/dev/null)" != D ] || count=$((count + 1))
    done
    echo "$count"
}

some_blocked() { [ "$(blocked)" -ge "$1" ]; }

writers_that_block_hold_up_no_reader()
{
    local n writers=()
    mkdir "$MNT"/sessions/w{1,2,3,4,5,6}
    echo before >"$MNT/sessions/s/append"
    fsfreeze --freeze "$frozen"
    trap thaw_if_frozen EXIT # or those that wait would keep the case from its end
    for n in 1 2 3 4 5 6; do
        echo "from writer $n" >"$MNT/sessions/w$n/append" &
        writers+=($!)
    done
    # One waits for the disk; the others wait for it or for their turn. Nobody has finished.
    t_wait some_blocked 1
    # What is in memory is answered meanwhile, also what nobody has asked for before.
    for n in 1 2 3; do
        timeout "$T_TIMEOUT" cat "$MNT/sessions/s/$((n * 50))" >"$T_DIR/out"
        t_match "$(cat "$T_DIR/out")" "\"payload\":\"$((n * 50))\""
    done
    for n in "${writers[@]}"; do
        t_alive "$n" || t_fail "a writer did not wait for the frozen disk"
    done
    fsfreeze --unfreeze "$frozen"
    wait "${writers[@]}"
    for n in 1 2 3 4 5 6; do
        t_match "$(cat "$MNT/sessions/w$n/1")" "from writer $n"
    done
}

# SIGTERM with requests under way: a reader of follow, which is parked, and appends that never end.
ends_at_sigterm()
{
    local reader writer
    rm -f "$T_DIR/followed"
    cat "$MNT/sessions/s/follow" >"$T_DIR/followed" &
    reader=$!
    while :; do echo more >"$MNT/sessions/s/append" || break; done 2>/dev/null &
    writer=$!
    t_wait test -s "$T_DIR/followed"
    kill -TERM "$DAEMON_PID"
    t_wait_end
    wait "$reader"
    wait "$writer" || true
}

# The one processor that it may use is no place to spin; the loop is the same otherwise.
one_processor()
{
    local cpu
    cpu=$(taskset -p "$$" | sed 's/.*: //')
    cpu=$(python3 -c 'import sys; mask = int(sys.argv[1], 16); print((mask & -mask).bit_length() - 1)' "$cpu")
    taskset -p -c "$cpu" "$BASHPID" >/dev/null
    t_mount -o spin=10ms
    comes_to_rest
    t_unmount
}

for spin in 50us 0 10ms; do
    t_use "spin-$spin"
    DIR=$frozen/store-$spin
    t_mount -o "spin=$spin"
    mkdir "$MNT/sessions/s"
    t_test "spin=$spin: it comes to rest" comes_to_rest
    t_test "spin=$spin: writers that wait for a disk hold up no reader" writers_that_block_hold_up_no_reader
    t_test "spin=$spin: it ends at SIGTERM" ends_at_sigterm
done
t_use one
DIR=$frozen/store-one
t_mount
mkdir "$MNT/sessions/s"
t_unmount
t_test "on one processor" one_processor
