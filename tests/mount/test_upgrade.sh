#!/usr/bin/env bash
# test_upgrade.sh - the stores in tests/data/format-*, made by earlier versions, open, show what they showed, and
# are written on. And what comes from later versions is refused or kept by its feature flags.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

# A store of the sample's segments, its rules if it has some, and nothing else.
copy_sample()
{
    mkdir -p "$DIR/log"
    cp "$1"/log/*.seg "$DIR/log/"
    chmod 600 "$DIR"/log/*
    [ ! -e "$1/retain" ] || install -m 600 "$1/retain" "$DIR/retain"
}

# shows SAMPLE: the mount has the records and sessions of the sample, perhaps with more records behind.
shows()
{
    local sample=$1 size id name first
    size=$(stat -c %s "$sample/expected/log")
    head -c "$size" "$MNT/log" | cmp - "$sample/expected/log"
    # What was dropped stays in the root's log until its segment is rewritten.
    while read -r first id; do
        name=$(jq -rn --arg id "$id" '$id | gsub("%"; "%25") | gsub("/"; "%2F")')
        jq -c --arg id "$id" --argjson first "$first" 'select(.session_id == $id and .seq >= $first) | .payload' \
            "$sample/expected/log" >"$T_HOME/want"
        head -n "$(wc -l <"$T_HOME/want")" "$MNT/sessions/$name/log" | jq -c .payload | cmp - "$T_HOME/want"
    done < <(jq -r '.[] | "\(.first_seq // 0) \(.session_id)"' "$sample/expected/sessions.json")
    t_eq "$(ls "$MNT/sessions" | wc -l)" "$(jq length "$sample/expected/sessions.json")" "sessions"
}

# has_documents SAMPLE: state/, archive/, history/ and the rules of retain are those of the sample, if it tells of them.
has_documents()
{
    [ -e "$1/expected/documents" ] || return 0
    "$T_ROOT/tests/data/show-documents" "$MNT" >"$T_HOME/documents"
    diff "$1/expected/documents" "$T_HOME/documents"
}

no_damage()
{
    echo verify >"$MNT/.ctl"
    t_eq "$(tail -n 1 "$MNT/.ctl" | jq '.damaged_gaps + .broken_batches + .index_missing + .index_dangling')" 0 "damage"
    t_eq "$(jq .damage_found "$MNT/.status")" 0 "damage found"
}

opens()
{
    local sample=$1
    t_use "${sample##*/}"
    copy_sample "$sample"
    t_mount
    shows "$sample"
    # Later versions may say more of a session than the one that made the sample.
    cat "$MNT/sessions"/*/meta | jq -S --slurp --slurpfile expected "$sample/expected/sessions.json" \
        '[., $expected[0]] | transpose | map(.[1] as $e | .[0] // {} | with_entries(select(.key | in($e))))' |
        diff "$sample/expected/sessions.json" -
    has_documents "$sample"
    no_damage
    t_unmount
}

goes_on()
{
    local sample=$1 session last
    t_use "${sample##*/}"
    t_mount
    for session in "$MNT/sessions"/*; do
        last=$(jq '.last_seq // 0' "$session/meta")
        exec 4<>"$session/append"
        echo 'written later' >&4
        read -r seq <&4
        exec 4>&-
        t_eq "$seq" "$((last + 1))" "seq in ${session##*/}"
    done
    echo rotate >"$MNT/.ctl"
    echo reindex >"$MNT/.ctl"
    shows "$sample"
    has_documents "$sample"
    no_damage
    t_kill9
    t_mount
    shows "$sample"
    has_documents "$sample"
    for session in "$MNT/sessions"/*; do
        t_match "$(tail -n 1 "$session/log")" '"written later"'
    done
    t_unmount
}

read_only()
{
    local sample=$1
    t_use "${sample##*/}-ro"
    copy_sample "$sample"
    t_mount -o ro
    shows "$sample"
    # The rules are asked for by commands, which write.
    if [ -e "$sample/expected/documents" ]; then
        "$T_ROOT/tests/data/show-documents" "$MNT" 2>"$T_HOME/said" >"$T_HOME/documents" || true
        diff <(grep -v '^== retain' "$sample/expected/documents") <(grep -v '^== retain' "$T_HOME/documents")
    fi
    t_unmount
    diff -r "$DIR/log" "$sample/log"
}

t_ne "$(ls -d "$T_ROOT"/tests/data/format-* | wc -l)" 0 "samples"
for sample in "$T_ROOT"/tests/data/format-*; do
    t_test "${sample##*/}: opens, and shows what it showed" opens "$sample"
    t_test "${sample##*/}: is written on" goes_on "$sample"
    t_test "${sample##*/}: opens read-only" read_only "$sample"
done

# present KIND NAME: the present version has that sample, and what makes it makes it still.
present()
{
    local version sample
    version=$(sed -n 's/^#define SEGMENT_VERSION \([0-9]*\)U*/\1/p' "$T_ROOT/store/format.h")
    sample=$T_ROOT/tests/data/format-$version$2
    [ -d "$sample" ] || t_fail "there is no sample of format $version"
    mkdir -p "$T_DIR/made"
    "$T_ROOT/tests/data/make-format-sample" "$HOTLOGFS" "$T_DIR/made/$1" "$1"
    # But for times, ids and salts it is the same again.
    diff <(without_times "$T_DIR/made/$1/expected/log") <(without_times "$sample/expected/log")
    opens "$T_DIR/made/$1"
}
without_times() { jq -c 'del(.ts_ms)' "$1"; }
t_test "the sample of this version can be made again" present fresh ""
t_test "the one in which much was dropped, too" present lived -lived

# What the second sample is for is in it.
much_was_dropped()
{
    local log=$T_ROOT/tests/data/format-1-lived/log what
    [ -e "$log/00000001-00000001.1.seg" ] || t_fail "no compacted segment"
    for what in '"drop":"trim"' '"drop":"delete"' '"sums":' '"op":"archive"' '"op":"undo"' '"op":"checkpoint"'; do
        grep -qaF "$what" "$log"/*.seg || t_fail "no $what in it"
    done
    t_eq "$(jq -c '.[] | select(.session_id == "agent") | [.records, .sums.events, .sums.calls]' \
        "$T_ROOT/tests/data/format-1-lived/expected/sessions.json")" '[62,211,70]' "records left, events, calls"
}
t_test "it has what drops and compaction leave" much_was_dropped

# ---- what later versions write ------------------------------------------------------------------

SAMPLE=$T_ROOT/tests/data/format-1

# set_header SEGMENT OFFSET VALUE: writes a u32 into both headers, and their checksums.
set_header()
{
    python3 - "$@" <<'END'
import struct, sys, zlib
path, offset, value = sys.argv[1], int(sys.argv[2]), int(sys.argv[3], 0)
with open(path, "r+b") as file:
    for at in (0, 512):
        file.seek(at)
        header = bytearray(file.read(128))
        assert header[:8] == b"HOTLOGSG"
        struct.pack_into("<I", header, offset, value)
        struct.pack_into("<I", header, 124, zlib.crc32(header[:124]))
        file.seek(at)
        file.write(header)
END
}

# refuses OFFSET VALUE REGEX: a store, of whose segments one has that, is refused in that sentence, unchanged.
refuses()
{
    local segment
    for segment in 00000001-00000001.0.seg 00000002-00000002.0.seg; do
        t_use "refused-$1-$segment"
        copy_sample "$SAMPLE"
        set_header "$DIR/log/$segment" "$1" "$2"
        cp -r "$DIR/log" "$T_HOME/before"
        for option in rw ro; do
            t_run "$HOTLOGFS" "$DIR" "$MNT" -o "$option"
            t_eq "$T_STATUS" 1 "exit status: $T_OUT"
            t_match "$T_OUT" "$3" "what it says"
            t_match "$T_OUT" "$segment" "what it says"
            ! t_is_mounted || t_fail "mounted"
            diff -r "$DIR/log" "$T_HOME/before"
        done
    done
}
t_test "an incompatible feature is refused by name" refuses 12 0x80000004 'incompatible features 0x80000004'
t_test "a later version is refused by name" refuses 8 2 'format version 2'

keeps_compatible()
{
    local segment
    t_use compatible
    copy_sample "$SAMPLE"
    for segment in "$DIR"/log/*.seg; do
        set_header "$segment" 16 0x40000001
    done
    t_mount
    shows "$SAMPLE"
    echo more >"$MNT/sessions/events/append"
    echo rotate >"$MNT/.ctl"
    echo reindex >"$MNT/.ctl"
    no_damage
    t_unmount
    for segment in "$DIR"/log/0000000[12]*.seg; do
        t_eq "$(od -An -tx4 -j16 -N4 "$segment")$(od -An -tx4 -j528 -N4 "$segment")" " 40000001 40000001" "flags of ${segment##*/}"
    done
    t_mount
    shows "$SAMPLE"
    t_unmount
}
t_test "a compatible feature that is not known is kept" keeps_compatible
