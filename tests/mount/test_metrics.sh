#!/usr/bin/env bash
# test_metrics.sh - .metrics is OpenMetrics, can be read by what reads the older format of Prometheus, and says the same
# as .status.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

t_mount

says_what_status_says()
{
    local s=$MNT/sessions/s
    mkdir "$s"
    cat >"$s/append" <<'END'
{"kind":"ToolCall","tool":"bash","tool_call_id":"1","tokens_in":5,"cache_read_tokens":9}
{"kind":"Error","tool":"a \"name\" with \\ and \n and \u0001 and é","cost_usd_e6":-1234567}
{"kind":"ToolCall","tool":"ls"}
END
    sync "$s/log"
    echo '{"kind":1}' >"$s/append" && t_fail "taken"
    echo '{' >"$s/append" && t_fail "taken"
    echo '{"seq":1}' >"$s/append" && t_fail "taken"
    # The module is the system's, whatever python3 is first in PATH.
    PYTHONPATH=$T_HERE /usr/bin/python3 -B "$T_HERE/metrics_cases.py" "$MNT" || t_fail "see above"
}
t_test ".metrics is OpenMetrics and says what .status says" says_what_status_says

# promtool knows the older format, in which a counter's help would stand under its name with _total; else it has
# nothing to say.
by_promtool()
{
    t_run promtool check metrics <"$MNT/.metrics"
    [ "$T_STATUS" = 0 ] || [ "$T_STATUS" = 3 ] || t_fail "promtool cannot read it: $T_OUT"
    t_eq "$(grep -vE '^hotlogfs_[a-z_]+_total no help text$' <<<"$T_OUT" || true)" "" "what promtool says"
    # It reads what is given to it.
    t_run promtool check metrics <<<'hotlogfs_appends_total many'
    t_eq "$T_STATUS" 1 "promtool on nonsense"
}
t_test "promtool reads it" by_promtool

for_scrapers()
{
    t_eq "$(stat -c %a "$MNT/.metrics")" 444
    # As a textfile collector is given it.
    cp "$MNT/.metrics" "$T_DIR/hotlogfs.prom"
    t_eq "$(tail -n 1 "$T_DIR/hotlogfs.prom")" "# EOF"
    t_eq "$(grep -c '^# TYPE' "$T_DIR/hotlogfs.prom")" "$(grep -c '^# HELP' "$T_DIR/hotlogfs.prom")"
    t_remount -o ro
    t_match "$(cat "$MNT/.metrics")" 'hotlogfs_read_only 1'
    t_match "$(cat "$MNT/.metrics")" 'hotlogfs_tool_calls\{tool="bash"\} 1'
}
t_test "it can be copied, and is there on a read-only mount" for_scrapers
