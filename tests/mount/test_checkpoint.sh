#!/usr/bin/env bash
# test_checkpoint.sh - each of the three kept copies of the index restores one that is lost or damaged.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BASE=$T_DIR/stores/base # not where the harness looks for logs of daemons

# A store with three checkpoints, appends between and behind them, that ended by a crash.
make_base()
{
    local i
    t_mount -o segment_size=64K
    mkdir "$MNT/sessions/s" "$MNT/sessions/t"
    for i in 1 2 3 4 5; do
        seq 1 700 >"$MNT/sessions/s/append"
        seq 1 300 | sed 's/.*/{"n":&,"kind":"Cost"}/' >"$MNT/sessions/t/append"
        [ "$i" = 5 ] || echo checkpoint >"$MNT/.ctl"
    done
    cp "$MNT/log" "$T_DIR/root.log"
    cp "$MNT/sessions/s/log" "$T_DIR/s.log"
    t_kill9
    mkdir "$T_DIR/stores"
    cp -a "$DIR" "$BASE"
}

# restored NTH WAY: only the nth newest checkpoint is left, and the index is lost or damaged.
restored()
{
    local nth=$1 way=$2 kept at size
    t_use "$way-$nth"
    cp -a "$BASE" "$DIR"
    kept=$(find "$DIR/checkpoints" -name '*.ckpt' | sort -r | sed -n "${nth}p")
    [ -n "$kept" ] || t_fail "there are fewer than $nth checkpoints"
    find "$DIR/checkpoints" -name '*.ckpt' ! -path "$kept" -delete
    size=$(stat -c %s "$DIR/index/data.mdb")
    case $way in
        deleted) rm -r "$DIR/index" ;;
        damaged)
            for ((at = 0; at < size; at += 8192)); do
                printf 'damaged' | dd of="$DIR/index/data.mdb" bs=1 seek="$((at + 24))" conv=notrunc status=none
            done
            ;;
        cut) truncate -s "$((size / 2))" "$DIR/index/data.mdb" ;;
    esac
    t_mount -o segment_size=64K
    grep -q "the index was restored from a checkpoint" "$t_log" || t_fail "it was not restored: $(cat "$t_log")"
    t_run grep "building the index" "$t_log"
    t_eq "$T_STATUS" 1 "the index was built anew: $T_OUT"
    t_eq "$(jq .recovered_records "$MNT/.status")" "$((nth * 1000))" "records read again"
    t_same "$MNT/log" "$T_DIR/root.log"
    t_same "$MNT/sessions/s/log" "$T_DIR/s.log"
    echo more >"$MNT/sessions/t/append"
    t_match "$(tail -n 1 "$MNT/sessions/t/log")" '"seq":1501'
    exec 4<>"$MNT/.ctl"
    echo verify >&4
    jq -e '.records == 5001 and .damaged_gaps + .broken_batches + .index_missing + .index_dangling == 0' <&4
    exec 4>&-
    t_unmount
}

make_base
for way in deleted damaged cut; do
    for nth in 1 2 3; do
        t_test "the index is $way, checkpoint $nth of 3 is left" restored "$nth" "$way"
    done
done
