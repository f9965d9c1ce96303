#!/usr/bin/env bash
# test_docs.sh - what is written about hotlogfs holds: manual pages against --help, the option table, the
# commands and the files of a real mount.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

MAN=$T_ROOT/man

# same_lines WHAT FILE FILE: as sets; says which are missing where.
same_lines()
{
    local only
    only=$(comm -3 <(sort -u "$2") <(sort -u "$3"))
    t_ne "$(wc -l <"$2")" 0 "lines of ${2##*/}"
    [ -z "$only" ] || t_fail "$1: only in ${2##*/} (left) or ${3##*/} (right): $only"
}

# items PAGE SECTION MACRO: the first word after `.It MACRO` in the section, one a line.
items()
{
    awk -v section="$2" -v macro="$3" '
        /^\.Sh / { inside = index($0, section) == 5 }
        inside && $1 == ".It" && $2 == macro { for (i = 3; i <= NF && $i != "Ns" && $i != "Ar"; i++) if ($i != ",") print $i }
    ' "$MAN/$1" | tr -d '"'
}

# ---- manual pages -------------------------------------------------------------------------------

lint_clean()
{
    local page said
    for page in "$MAN"/*.[1-8]; do
        # Whether pages of other packages are installed is no matter of ours.
        said=$(mandoc -T lint "$page" 2>/dev/null | grep -v 'referenced manual not found: Xr' || true)
        t_eq "$said" "" "mandoc -T lint"
        said=$(MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
        t_eq "$said" "" "man --warnings -l ${page##*/}"
    done
}
t_test "manual pages are lint-clean" lint_clean

references()
{
    local page name section
    for page in "$MAN"/*.[1-8]; do
        while read -r _ name section _; do
            [[ $name != *hotlogfs* ]] || [ -e "$MAN/$name.$section" ] || t_fail "${page##*/} refers to $name($section)"
        done < <(grep '^\.Xr' "$page")
        t_eq "$(sed -n 's/^\.Dt \([^ ]*\) \(.\)$/\1.\2/p' "$page" | tr '[:upper:]' '[:lower:]')" "${page##*/}" "title"
    done
}
t_test "they refer to pages that are there" references

# ---- options ------------------------------------------------------------------------------------

table_of_options() { sed -n '/^static const struct option options/,/^};/s/^    {"\([a-z_]*\)",.*/\1/p' "$T_ROOT/fs/options.c"; }
help_options() { "$HOTLOGFS" --help | sed -n '/^Options for -o/,/^$/s/^  \([a-z_]*\).*/\1/p'; }

options_everywhere()
{
    cd "$T_DIR"
    table_of_options >options.c
    help_options >help
    items hotlogfs.1 OPTIONS Cm >hotlogfs.1
    same_lines "options" options.c help
    same_lines "options" options.c hotlogfs.1
    # The README's table leaves out the names of defaults.
    sed -n '/^## Options/,/^Times take/s/^| \(`.*\) | .*|.*|/\1/p' "$T_ROOT/README.md" | tr ',' '\n' |
        sed 's/[` ]//g; s/=.*//' >README.md
    printf 'rw\nasync\n' >>README.md
    same_lines "options" options.c README.md
}
t_test "every option is in the table, in --help, in hotlogfs(1) and in the README" options_everywhere

defaults_and_arguments()
{
    local name argument default item
    while read -r name argument default; do
        # The text of the item, up to the next one, in one line.
        item=$(awk -v name="$name" '$1 == ".It" || $1 == ".El" { on = $3 == name } on' "$MAN/hotlogfs.1" | tr '\n' ' ')
        t_match "$item" "Ns = Ns Ar $argument " "the argument of $name in hotlogfs(1)"
        t_match "$item" "\($default[;)]" "the default of $name in hotlogfs(1)"
        grep -qE "\`$name=$argument\`" "$T_ROOT/README.md" || t_fail "README.md says nothing of $name=$argument"
    done < <("$HOTLOGFS" --help | sed -n '/^Options for -o/,/^$/s/^  \([a-z_]*\)=\([A-Z]*\) .*(\([^)]*\))$/\1 \2 \3/p')
}
t_test "their arguments and defaults agree" defaults_and_arguments

flags_everywhere()
{
    cd "$T_DIR"
    "$HOTLOGFS" --help | sed '/^Options for -o/,$d' | grep -oE '(^| )--?[a-zA-Z]+' | tr -d ' ' | grep -vxE -- '-t|-o' >flags-help
    items hotlogfs.1 OPTIONS Fl | sed 's/^\\-/-/; s/^/-/' | grep -vx -- -o >flags-hotlogfs.1
    same_lines "flags" flags-help flags-hotlogfs.1
}
t_test "every flag is in --help and in hotlogfs(1)" flags_everywhere

# The words that fs/options.c drops or forwards, and those that the page names; "no" in front is their opposite.
generic_options()
{
    local word page
    page=$(sed 's/^\.It//' "$MAN/mount.hotlogfs.8" | tr ' ' '\n')
    for word in $(sed -n '/^static const char \*const forwarded/,/};/p; /^static const char \*const ignored\[/,/};/p' \
        "$T_ROOT/fs/options.c" | grep -oE '"[a-z_]+"' | tr -d '"') nofail remount; do
        grep -qxF -- "$word" <<<"$page" || grep -qxF -- "${word#no}" <<<"$page" ||
            t_fail "mount.hotlogfs(8) says nothing of $word"
        t_run "$HOTLOGFS" "$T_DIR/no/where" "$T_DIR" -o "$word"
        [[ $T_OUT != *"unknown option"* ]] || t_fail "$word is unknown"
    done
}
t_test "mount.hotlogfs(8) names every option of mount(8) that is taken" generic_options

# ---- commands and files -------------------------------------------------------------------------

t_mount
mkdir "$MNT/sessions/s"
echo hi >"$MNT/sessions/s/append"

commands_everywhere()
{
    cd "$T_DIR"
    echo help >"$MNT/.ctl"
    tail -n 1 "$MNT/.ctl" | jq -r '.commands[].name' >ctl-help
    items hotlogfs-ctl.5 COMMANDS Cm >hotlogfs-ctl.5
    same_lines "commands" ctl-help hotlogfs-ctl.5
    grep -oE 'commands: `[^`]*`' "$T_ROOT/README.md" | sed 's/.*`\(.*\)`/\1/' | tr ' ' '\n' >README.commands
    same_lines "commands" ctl-help README.commands
}
t_test "every command is in .ctl help, in hotlogfs-ctl(5) and in the README" commands_everywhere

fields_everywhere()
{
    cd "$T_DIR"
    jq -r 'keys[]' "$MNT/.status" >status
    awk '/^\.Sh / { inside = $2 == "STATUS" } inside && $1 == ".It" { for (i = 3; i <= NF; i++) if ($i != ",") print $i }
        inside && $0 == ".El" { exit }' "$MAN/hotlogfs-ctl.5" >status-page
    same_lines "fields of .status" status status-page
    jq -r 'keys[]' "$MNT/sessions/s/meta" >meta
    echo '{' >"$MNT/sessions/s/append" || true
    jq -r 'keys[]' "$MNT/sessions/s/last_error" >>meta
    local field
    while read -r field; do
        awk '/^\.Pa meta/,/^\.Sh /' "$MAN/hotlogfs-ctl.5" | grep -qE "^\.Va (.* )?$field( |\$)" ||
            t_fail "hotlogfs-ctl(5) says nothing of $field"
    done <meta
}
t_test "every field of .status, meta and last_error is in hotlogfs-ctl(5)" fields_everywhere

# Names, in the root and in a session, that ls shows or a look-up finds.
files_everywhere()
{
    local name
    for name in $(ls -A "$MNT" "$MNT/sessions/s" | grep -v ':$' | sed 's/^[0-9]*$/N/') A-B follow; do
        grep -qE "^\.It Pa (sessions/ID/)?$name/?( |\$)" "$MAN/hotlogfs-ctl.5" || t_fail "hotlogfs-ctl(5) says nothing of $name"
        grep -qF "$name" "$T_ROOT/README.md" || t_fail "README.md says nothing of $name"
    done
    for name in $(getfattr -d -m - "$MNT/sessions/s/1" 2>/dev/null | sed -n 's/=.*//p'); do
        grep -qF ".It Va $name" "$MAN/hotlogfs-ctl.5" || t_fail "hotlogfs-ctl(5) says nothing of $name"
    done
}
t_test "every file and attribute is in hotlogfs-ctl(5)" files_everywhere

t_test "unmounts cleanly" t_unmount

# Every name in DIR, as the last unmount left it, but for what LMDB and names made of numbers are.
store_everywhere()
{
    local name
    for name in $(ls "$DIR"); do
        grep -qE "^\.It Pa $name/?\$" "$MAN/hotlogfs-format.5" || t_fail "hotlogfs-format(5) says nothing of $name"
    done
    # Each type of frame by its number, as the header has it.
    while read -r name type; do
        name=$(tr '[:upper:]' '[:lower:]' <<<"$name")
        grep -qE "^\.It $type $name\$" "$MAN/hotlogfs-format.5" || t_fail "hotlogfs-format(5) says nothing of frame $name, $type"
    done < <(sed -n 's/^    FRAME_\([A-Z]*\) = \([0-9]*\),.*/\1 \2/p' "$T_ROOT/store/format.h")
}
t_test "what lies in DIR is in hotlogfs-format(5)" store_everywhere

# ---- docs/ --------------------------------------------------------------------------------------

# page NAME [HEADING]: its shell blocks, with hotlogfs in PATH and mnt as the mountpoint, print what stands there.
page()
{
    t_use "page${2:+-${2// /-}}-$1"
    mkdir "$T_HOME/bin" "$T_HOME/work"
    ln -s "$HOTLOGFS" "$T_HOME/bin/hotlogfs"
    MNT=$T_HOME/work/mnt
    t_defer t_abandon_page "$T_HOME/work"
    cd "$T_HOME/work"
    PATH=$T_HOME/bin:$PATH python3 "$T_HERE/doc_blocks.py" "$T_ROOT/docs/$1.md" "${@:2}"
    t_wait t_page_ended "$T_HOME/work"
}
# Ends what a page that went wrong leaves: its mounts, and so their daemons, and what wrote its pid to a file.
t_abandon_page()
{
    local mount pid
    for pid in "$1"/*.pid; do
        [ ! -e "$pid" ] || kill "$(cat "$pid")"
    done
    while read -r mount; do
        umount -l "$mount"
    done < <(awk -v d="$1/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo)
    t_wait t_page_ended "$1"
}
# Nobody holds the locks of its stores.
t_page_ended()
{
    local lock
    while read -r lock; do
        flock -n "$lock" true || return 1
    done < <(find "$1" -xdev -name lock -type f)
}
t_test "docs/tutorial.md does what it says" page tutorial

# recipe HEADING: that part of docs/recipes.md, with $LOG a mount.
recipe()
{
    t_use "recipe-${1// /-}"
    t_mount
    LOG=$MNT page recipes "$1"
    t_use "recipe-${1// /-}"
    t_unmount
}
t_test "recipe: a shell that logs its commands" recipe "A shell that logs its commands"
t_test "recipe: an agent's hook" recipe "An agent's hook"
t_test "recipe: syslog into a session" recipe "Syslog into a session"
t_test "recipe: questions of a year" recipe "Asking questions of a year"
t_test "recipe: keep only the newest" recipe "Keep only the newest"
t_test "recipe: metrics" recipe "Metrics for Prometheus"
t_test "recipe: backup" recipe "Backup"

# What the page gives DuckDB, by the package that npm has of it.
duckdb_recipe()
{
    t_use recipe-duckdb
    t_mount
    mkdir "$T_HOME/npm"
    cd "$T_HOME/npm"
    npm install --silent --no-audit --no-fund @duckdb/node-api@1.5.6-r.1
    sed -n '/^```sql file=cost.sql$/,/^```$/{/^```/!p}' "$T_ROOT/docs/recipes.md" | sed "s,/run/hotlogfs/main,$MNT," >cost.sql
    [ -s cost.sql ] || t_fail "no question in docs/recipes.md"
    printf '{"session_id":"%s","kind":"Cost","cost_usd_e6":%s}\n' a1 1500000 a2 250000 a1 30000 >"$MNT/append"
    echo '{"session_id":"a2","kind":"Message","cost_usd_e6":null,"payload":{"deep":[1]}}' >"$MNT/append"
    cat >ask.mjs <<'END'
import { readFileSync } from "node:fs";
import { DuckDBInstance } from "@duckdb/node-api";
const connection = await (await DuckDBInstance.create(":memory:")).connect();
const answer = await connection.runAndReadAll(readFileSync("cost.sql", "utf8"));
console.log(JSON.stringify(answer.getRowsJson()));
END
    t_eq "$(node ask.mjs)" '[["a1",1.53],["a2",0.25]]' "DuckDB's answer"
    cd /
    t_unmount
}
t_test "recipe: questions of a year, to DuckDB" duckdb_recipe

# What the page says by which programs that ship logs know them again: inodes and first lines stay over a mount, and
# are others where records were dropped.
known_again()
{
    t_use shipped
    t_mount
    printf '{"session_id":"s","payload":%d}\n' 1 2 3 4 >"$MNT/append"
    local log=$MNT/log session=$MNT/sessions/s/log before first
    before=$(stat -c %i "$log" "$session")
    first=$(head -n 1 "$log")
    t_remount
    echo '{"session_id":"s","payload":5}' >"$MNT/append"
    t_eq "$(stat -c %i "$log" "$session")" "$before" "inodes after a mount"
    t_eq "$(head -n 1 "$log")" "$first" "the first line after a mount"
    echo 'trim s 3' >"$MNT/.ctl"
    t_ne "$(stat -c %i "$session")" "$(tail -n 1 <<<"$before")" "inode of the session's log after a trim"
    echo rotate >"$MNT/.ctl"
    echo 'compact all' >"$MNT/.ctl"
    t_ne "$(stat -c %i "$log")" "$(head -n 1 <<<"$before")" "inode of the root's log after a compaction"
    t_match "$(head -n 1 "$log")" '"seq":3,' "the first line then"
    t_unmount
}
t_test "recipe: shipping, what logs are known again by" known_again

# Every recipe that has commands is among these.
recipes_are_tested()
{
    local heading
    awk '/^## / { heading = substr($0, 4) } /^```sh$/ { print heading }' "$T_ROOT/docs/recipes.md" | sort -u >"$T_DIR/headings"
    while read -r heading; do
        grep -qF "recipe \"$heading\"" "${BASH_SOURCE[0]}" || t_fail "no test runs the recipe: $heading"
    done <"$T_DIR/headings"
}
t_test "every recipe with commands is run" recipes_are_tested

# What the recipe for backups says of copies taken at any moment.
backup_under_load()
{
    t_use loaded
    t_mount -o segment_size=64K
    (while echo '{"session_id":"s","payload":"some text to fill segments with, so that they are sealed now and then"}'; do :; done \
        >"$MNT/append") 2>"$T_HOME/writer" &
    local writer=$! round copy source=$DIR mount=$MNT segments
    t_defer kill "$writer"
    for round in 1 2 3; do
        segments=$(jq .segments "$mount/.status")
        t_wait more_segments "$mount" "$segments"
        copy=$T_DIR/copy-$round
        mkdir "$copy"
        rsync -a "$source/log/" "$copy/log/"
        t_use "copy-$round-mount"
        DIR=$copy
        t_mount
        cmp -n "$(stat -c %s "$MNT/log")" "$MNT/log" "$mount/log"
        echo verify >"$MNT/.ctl"
        t_eq "$(tail -n 1 "$MNT/.ctl" | jq '.damaged_gaps + .broken_batches + .index_missing')" 0 "damage in the copy"
        t_ne "$(jq .records "$MNT/.status")" 0 "records in the copy"
        t_unmount
        DIR=$source MNT=$mount
    done
    kill "$writer"
    wait "$writer" || true
    t_use loaded
    t_unmount
}
more_segments() { [ "$(jq .segments "$1/.status")" -gt "$2" ]; }
t_test "a copy of log/, taken while it is written to, is a store" backup_under_load

# The headings of docs/troubleshooting.md are what users see: sentences of the sources, or names of errors.
t_test "docs/troubleshooting.md quotes what the program says" python3 "$T_HERE/doc_sentences.py" "$T_ROOT"

# What docs/tour.svg shows, digits aside, is what scripts/run shows now.
tour_is_true()
{
    "$T_ROOT/scripts/record-tour" "$T_DIR/tour.svg"
    local file
    for file in "$T_DIR/tour.svg" "$T_ROOT/docs/tour.svg"; do
        python3 - "$file" >"$T_DIR/$([ "$file" = "$T_DIR/tour.svg" ] && echo new || echo old).tour" <<'END'
import re, sys
import xml.etree.ElementTree
for text in xml.etree.ElementTree.parse(sys.argv[1]).iter("{http://www.w3.org/2000/svg}text"):
    print(re.sub(r"[0-9]+", "0", "".join(text.itertext())))
END
    done
    [ "$(wc -l <"$T_DIR/new.tour")" -gt 30 ] || t_fail "the tour is too short"
    diff "$T_DIR/old.tour" "$T_DIR/new.tour" || t_fail "docs/tour.svg is out of date: run scripts/record-tour"
    grep -qF '](docs/tour.svg)' "$T_ROOT/README.md"
}
t_test "docs/tour.svg shows what scripts/run shows" tour_is_true

t_test "each mutant is a change of what stands in the sources" "$T_ROOT/scripts/mutants" -n
