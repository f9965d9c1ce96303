#!/usr/bin/env bash
# test_sums.sh - what the events of a session, and of all, come to: in meta and in .status, over remounts, a lost
# index, and on a read-only mount beside.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

t_mount

sums() { jq -c ".sums | $1" "$MNT/sessions/$2/meta"; }
all() { jq -c ".sums | $1" "$MNT/.status"; }

of_a_session()
{
    local s=$MNT/sessions/s
    mkdir "$s"
    t_eq "$(sums '[.events, .calls, .cost_usd_e6, .first_ts_ms, .last_ts_ms, .by_kind, .by_tool]' s)" \
        '[0,0,0,null,null,{},{}]' "a session without events"
    cat >"$s/append" <<'END'
{"ts_ms":2000,"source":"Hook","kind":"ToolCall","tool":"bash","tool_call_id":"c1","payload":{"tool":"no"}}
{"ts_ms":1000,"source":"Proxy","kind":"ToolCall","tool":"bash","tool_call_id":"c1","tokens_in":10,"tokens_out":5}
{"ts_ms":3000,"kind":"ToolResult","tool":"bash","tool_call_id":"c1"}
{"ts_ms":2500,"kind":"Error","tool":"bash","payload":"exit 1"}
{"ts_ms":2600,"kind":"Cost","tokens_in":100,"reasoning_tokens":7,"cache_read_tokens":50,"cost_usd_e6":-30}
{"op":"set","key":"k","value":1,"tokens_in":1000}
END
    t_eq "$(sums '[.events, .errors, .calls, .tokens_in, .tokens_out, .reasoning_tokens, .cache_read_tokens, .cache_creation_tokens, .cost_usd_e6, .first_ts_ms, .last_ts_ms]' s)" \
        '[5,1,1,110,5,7,50,0,-30,1000,3000]'
    t_eq "$(sums '.by_tool' s)" '{"bash":{"events":4,"errors":1,"calls":1,"tokens_in":10,"tokens_out":5}}'
    t_eq "$(sums '.by_kind | map_values([.events, .calls])' s)" \
        '{"ToolCall":[2,1],"ToolResult":[1,null],"Error":[1,null],"Cost":[1,null]}'
    echo '{"kind":"Message"}' >"$s/append"
    echo '{"kind":1}' >"$s/append" && t_fail "taken"
    t_eq "$(sums .events s)" 6 "after one more, and one that was refused"
}
t_test "meta sums events, errors, calls, tokens and cost" of_a_session

over_mounts()
{
    local before all_before
    for name in a b; do
        echo '{"session_id":"'$name'","kind":"ToolCall","tool":"ls","tool_call_id":"c1"}' >"$MNT/append"
    done
    t_eq "$(all '[.events, .calls, .by_tool.ls.calls]')" '[8,3,2]'
    before=$(sums . s) all_before=$(all .)
    t_remount
    t_eq "$(sums . s)" "$before" "after a remount"
    t_eq "$(all .)" "$all_before" "of all, after a remount"
    t_unmount
    rm -r "$DIR/index" "$DIR/checkpoints"
    t_mount
    t_eq "$(sums . s)" "$before" "after the index was lost"
    t_eq "$(all .)" "$all_before" "of all, after the index was lost"
    echo reindex >"$MNT/.ctl"
    t_eq "$(sums . s)" "$before" "after reindex"
    t_kill9
    t_mount
    t_eq "$(sums . s)" "$before" "after a crash"
    t_eq "$(all .)" "$all_before" "of all, after a crash"
}
t_test "they are kept over remounts, a crash and a lost index" over_mounts
