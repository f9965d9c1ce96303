#!/usr/bin/env bash
# test_append.sh - what a line written to `append` becomes, and how it is refused (design, section 2).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/append_cases.py" "$1" "$MNT"; }
seqs() { python3 "$T_HERE/seq_cases.py" "$1" "$MNT"; }

# ---- as a shell does it -----------------------------------------------------------------------------

payloads() { jq -r .payload "$MNT/sessions/$1/log"; }

shell_lines()
{
    local s=$MNT/sessions/shell
    mkdir "$s"
    echo hi >"$s/append"
    echo again >>"$s/append"
    printf 'no newline' >"$s/append"
    t_wait test -e "$s/3"
    printf 'a\nb\nc' >>"$s/append"
    t_wait test -e "$s/6"
    {
        echo x
        printf 'half '
        echo line
    } >"$s/append"
    : >"$s/append"
    t_eq "$(payloads shell | tr '\n' ,)" "hi,again,no newline,a,b,c,x,half line,"
}

shell_receipts()
{
    local s=$MNT/sessions/shell-receipts seq
    mkdir "$s"
    exec 3<>"$s/append"
    echo hi >&3
    read -r seq <&3
    t_eq "$seq" 1
    seq 16 >&3
    read -r seq <&3
    t_eq "$seq" 2-17
    echo '{"seq":42}' >&3
    read -r seq <&3
    t_eq "$seq" 42
    if read -r seq <&3; then
        t_fail "a receipt too many: $seq"
    fi
    exec 3>&-
}

shell_errors()
{
    local s=$MNT/sessions/shell-errors
    mkdir "$s"
    t_run bash -c 'echo "{broken" >"$1/append"' - "$s"
    t_ne "$T_STATUS" 0 "the status of a refused echo"
    t_match "$T_OUT" 'Invalid argument'
    t_eq "$(jq -r '"\(.errno) \(.line)"' "$s/last_error")" "EINVAL 1"
    t_run dash -c 'echo "{\"kind\":5}" >"$1/append"' - "$s"
    t_ne "$T_STATUS" 0 "the status of a refused echo"
    t_match "$(cat "$s/last_error")" kind
    t_eq "$(cat "$s/log")" ""
    t_errno EINVAL write "$s/append" '{"a":\xff}'
    t_errno OK write "$s/append" 'fine\x0a'
}

refused_and_logged()
{
    t_errno EINVAL write "$1" '{"tokens_in":"many"}\x0a'
    grep -q tokens_in "$t_log"
}

# The daemon's own log has the sentence as well.
errors_are_logged()
{
    local s=$MNT/sessions/logged
    mkdir "$s"
    # A flood of refusals is not logged line by line, so it may take more than one.
    t_wait refused_and_logged "$s/append"
}

# bash sends a flush before its first write; output of 98,304 bytes at a time cuts lines.
shell_long_output()
{
    local s=$MNT/sessions/shell-long
    mkdir "$s"
    (
        for ((i = 0; i < 20000; i++)); do
            echo "line $i of a loop"
        done
    ) >"$s/append"
    t_eq "$(payloads shell-long | sha256sum)" \
        "$(for ((i = 0; i < 20000; i++)); do echo "line $i of a loop"; done | sha256sum)"
}

# -o sync: what a write() returned is on the disk, without any fsync().
sync_option()
{
    local s position i
    t_use sync
    t_mount -o sync,sync_interval=1h
    s=$MNT/sessions/s
    mkdir "$s"
    for i in 1 2 3; do
        echo "line $i" >"$s/append"
        position=$(jq -r '.synced - .position' "$MNT/.status")
        t_eq "$position" 0 "what is not synced after write $i"
    done
    t_unmount
}

# So is what a program wrote that opened the file so, as open(2) has it.
synchronous_open()
{
    local file flag
    t_use synchronous
    t_mount -o sync_interval=1h
    mkdir "$MNT/sessions/s"
    for flag in SYNC DSYNC; do
        for file in append sessions/s/append sessions/s/state/key; do
            t_eq "$(python3 "$T_HERE/try.py" write "$MNT/$file" '{"session_id":"s"}\x0a' CREAT TRUNC "$flag")" OK "$file"
            t_eq "$(jq -r '.synced - .position' "$MNT/.status")" 0 "what is not synced, with O_$flag on $file"
        done
    done
    t_unmount
}

# Without it the same comes within sync_interval.
sync_interval()
{
    t_use interval
    t_mount -o sync_interval=50ms
    mkdir "$MNT/sessions/s"
    echo line >"$MNT/sessions/s/append"
    t_wait jq -e '.synced == .position' "$MNT/.status"
    t_unmount
}

synced_count() { jq -e '.synced == .position' "$MNT/.status"; }

coreutils_sync()
{
    local s target
    t_use long
    t_mount -o sync_interval=1h
    s=$MNT/sessions/s
    mkdir "$s"
    for target in "$s/log" "$s/append" "$s" "$MNT" "$MNT/sessions" "$s/1"; do
        echo line >"$s/append"
        sync "$target"
        synced_count || t_fail "sync $target left something unsynced"
    done
    t_unmount
}

t_mount
t_test "JSON lines are stored as written behind their stamps" py json_lines
t_test "null counts as absent" py null_fields
t_test "text lines become payloads" py text_lines
t_test "empty lines are skipped" py empty_lines
t_test "ids that need escapes" py id_is_escaped
t_test "bad lines are refused whole, with errno, line and reason" py refusals
t_test "values at their limits are taken" py limits_accepted
t_test "lines are counted from the kept piece" py line_number_after_pieces
t_test "a refused line spoils no later one" py next_line_after_a_refusal
t_test "a short write tried again" py retry_of_a_short_write
t_test "pieces are joined per open file" py pieces
t_test "flush appends complete objects only, the last close what is left" py flush_and_close
t_test "what is left at close is refused into last_error" py refused_at_close
t_test "a hopeless piece is refused at write()" py hopeless_pieces
t_test "a hopeless line is refused at the write that makes it so" py hopeless_at_last
t_test "seqs given by the writer" seqs seq_given
t_test "a retry is success and appends nothing" seqs retry_is_safe
t_test "receipts" seqs receipts
t_test "one write is one batch" py one_write_is_one_batch
t_test "a larger write is cut by the kernel and ends short" py large_write_is_cut
t_test "truncations and offsets change nothing" py truncations_and_offsets
t_test "fsync on anything is a barrier" py fsync_is_a_barrier
t_test "root append makes sessions, all or none" seqs root_append
t_test "root append tells a session why" seqs root_refusals_are_told
t_test "shell: lines" shell_lines
t_test "shell: receipts" shell_receipts
t_test "shell: errors" shell_errors
t_test "refusals are logged" errors_are_logged
t_test "shell: long output" shell_long_output
t_unmount

t_use sizes
t_mount -o max_record=64K
t_test "lines of exactly max_record and one more" py record_size
t_test "a log with the longest lines can be read back in" py longest_line_read_back
t_unmount

if [ "$(id -u)" = 0 ]; then
    t_use others
    chmod 711 "$T_DIR" "$T_HOME"
    t_mount -o allow_other
    t_test "root append checks the bits by who opened it" seqs root_permissions
    t_unmount
fi

t_test "-o sync" sync_option
t_test "O_SYNC and O_DSYNC" synchronous_open
t_test "sync_interval" sync_interval
t_test "sync(1) on files and directories" coreutils_sync
