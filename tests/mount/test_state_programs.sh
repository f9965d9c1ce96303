#!/usr/bin/env bash
# test_state_programs.sh - the programs that people have, writing documents on a real mount.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py()
{
    local name=$1
    shift
    python3 "$T_HERE/state_program_cases.py" "$name" "$MNT" "$@"
}

OLD='{"old":true}'
NEW='{"new":[1,2.75]}'
GOOD=$T_DIR/good.json # NEW as people write it
BAD=$T_DIR/bad.json
HALF=$T_DIR/half.json
printf '{\n  "new": [1, 2.75]\n}\n' >"$GOOD"
printf '{\n  "new": [1, oops]\n}\n' >"$BAD"
printf '{"new": [1,' >"$HALF"
export OLD NEW GOOD BAD HALF

at=0
# A session of its own, with K in it.
prepare()
{
    at=$((at + 1))
    name=program-$BASHPID-$at
    S=$MNT/sessions/$name/state
    mkdir "$MNT/sessions/$name"
    echo "$OLD" >"$S/K"
    export S
}

is_left()
{
    t_eq "$(cat "$S/K" 2>/dev/null || echo absent)" "$1" "K"
    t_eq "$(ls -A "$S" | tr '\n' ' ')" "${2-K }" "what is in state/"
    py check "$name"
}

# good COMMAND: run in state/, it must succeed and leave NEW in K.
good()
{
    prepare
    (cd "$S" && timeout 180 bash -c "$1") || t_fail "status $?: $1"
    is_left "$NEW"
}

# Run in state/, it must fail and say why.
refused()
{
    prepare
    t_run bash -c 'cd "$S" && timeout 180 bash -c "$1"' - "$1"
    t_ne "$T_STATUS" 0 "status of: $1"
    t_match "$(cat "${S%/state}/last_error")" 'state/'
}

# bad COMMAND: it must fail, and leave the old value; gone COMMAND: and leave none, as it removed that before.
bad()
{
    refused "$1"
    is_left "$OLD"
}
gone()
{
    refused "$1"
    is_left absent ""
}

# ignored COMMAND: the same of a program that does not heed what its close says.
ignored()
{
    prepare
    (cd "$S" && timeout 180 bash -c "$1") || true
    is_left "$OLD"
    t_match "$(cat "${S%/state}/last_error")" 'not whole'
}

shells()
{
    local shell
    good 'echo "$NEW" >K'
    good 'printf %s "$NEW" >K'
    good '{ printf "{"; printf "\"new\":"; printf "[1,"; printf "2.75]"; printf "}\n"; } >K'
    good '{ printf "{"; printf "\"new\":"; printf "[1,2.75]"; printf "}"; } >K'
    good 'exec 3>K; printf "{\"new\":" >&3; printf "[1,2" >&3; printf ".75]}" >&3; exec 3>&-'
    good 'set -o noclobber; echo "$NEW" >|K'
    good 'set -o noclobber; ! echo 1 >K && echo "$NEW" >|K'
    good 'cat >K <<<"$NEW"'
    good 'cat "$GOOD" >K'
    good 'cat <"$GOOD" | cat >K'
    good 'while read -r line; do echo "$line"; done <"$GOOD" >K'
    good 'echo "$NEW" >K; echo >>K'
    good 'dash -c "printf %s \"\$NEW\" >K"'
    good 'rm K; echo "$NEW" >>K'
    good 'echo "$NEW" >L; mv L K'
    good 'printf %s "$NEW" >.L; mv .L K'
    good 'T=$(mktemp -p .); cat "$GOOD" >"$T"; mv "$T" K'
    good 'T=$(mktemp -p . .tmp.XXXXXX); cat "$GOOD" >"$T"; mv "$T" K'
    bad 'echo oops >K'
    bad 'printf oops >K'
    bad 'cat "$BAD" >K'
    bad 'echo "$NEW" >>K'
    bad 'echo "$NEW $NEW" >K'
    bad 'echo oops >.L; mv .L K || { rm .L; exit 1; }'
    ignored 'printf "{\"new\":" >K'
    ignored 'exec 3>K; printf "{\"new\":" >&3; exec 3>&-'
}

core()
{
    good 'cp "$GOOD" K'
    good 'cp -a "$GOOD" K'
    good 'cp --sparse=always --no-preserve=all "$GOOD" K'
    good 'cp --remove-destination "$GOOD" K'
    good 'cp "$GOOD" L; cp L K; rm L'
    good 'cp -b "$GOOD" K; rm K~'
    good 'install -m 600 "$GOOD" K'
    good 'install -b "$GOOD" K; rm K~'
    good 'cp "$GOOD" "$T_DIR/moving"; mv "$T_DIR/moving" K'
    good 'tee K <"$GOOD" >/dev/null'
    good 'tee K L <"$GOOD" >/dev/null; cmp K L; rm L'
    good 'dd if="$GOOD" of=K bs=3 status=none'
    good 'dd if="$GOOD" of=K conv=fsync status=none'
    good 'dd if="$GOOD" of=K oflag=direct bs=4K status=none'
    good 'echo "$NEW" | sort -o K'
    good 'split -b 1000 --filter="cat >K" "$GOOD"'
    good 'touch K; truncate -s 0 K; cat "$GOOD" >K; touch -d 2001-01-01 K; chmod 600 K; chown "$(id -u)" K; sync K'
    good 'rm -f K nothing; cp -n "$GOOD" K; cp -n "$BAD" K || true'
    good 'cp -l K L || cp "$GOOD" K'
    good 'mkdir d || ln -s K L || ln K L || mknod L p || cp "$GOOD" K'
    bad 'cp "$BAD" K'
    bad 'cp -a "$BAD" K'
    bad 'cp "$HALF" K'
    bad 'tee K <"$BAD"'
    bad 'tee K <"$HALF"'
    bad 'dd if="$BAD" of=K bs=3'
    bad 'dd if="$HALF" of=K'
    # These remove what there is before they write.
    gone 'install "$BAD" K'
    gone 'cp --remove-destination "$BAD" K'
    gone 'cp "$BAD" "$T_DIR/moving"; mv "$T_DIR/moving" K'
    gone 'cp "$BAD" "$T_DIR/K"; tar -C "$T_DIR" -cf - K | tar -xf -'
}

filters()
{
    good 'jq . "$GOOD" >K'
    good 'jq --indent 7 . "$GOOD" >tmp && mv tmp K'
    good 'jq . "$GOOD" | sponge K'
    good 'cat "$GOOD" >K; jq . K | sponge K'
    good 'echo "{\"new\":[1,3.75]}" >K; sed -i s/3/2/ K'
    good 'echo "{\"new\":[1,3.75]}" >K; sed -i.bak s/3/2/ K; rm K.bak'
    good 'echo "{\"new\":[1,3.75]}" >K; sed --in-place=~ s/3/2/ K; rm K~'
    good 'echo "{\"new\":[1,3.75]}" >K; perl -pi -e s/3/2/ K'
    good 'echo "{\"new\":[1,3.75]}" >K; perl -pi.bak -e s/3/2/ K; rm K.bak'
    good 'echo "{\"new\":[1,3.75]}" >K; perl -pi~ -e s/3/2/ K; rm K~'
    good 'perl -e "open(F, q(>K)) or die; print F q({), q(\"new\":[1,2.75]}); close(F) or die"'
    good 'awk "{ print >\"K\" }" "$GOOD"'
    good 'awk "{ print }" "$GOOD" | sponge -a L; mv L K'
    bad 'sponge K <"$BAD"'
    bad 'sponge K <"$HALF"'
    bad 'sed -i s/true/tru/ K'
    bad 'sed -i "s/}//" K'
    bad 'perl -pi -e s/true/tru/ K'
    bad 'awk "{ print >\"K\" }" "$BAD"'
    bad 'jq -r ".new[0] = \"a b\" | .new[0]" "$GOOD" >K'
}

in_node()
{
    good 'node -e "require(\"fs\").writeFileSync(\"K\", process.env.NEW)"'
    good 'node -e "require(\"fs\").promises.writeFile(\"K\", process.env.NEW + \"\\n\")"'
    good 'node -e "
        const fs = require(\"fs\");
        fs.writeFileSync(\"K.tmp\", process.env.NEW); fs.renameSync(\"K.tmp\", \"K\")"'
    good 'node -e "
        const fs = require(\"fs\"), fd = fs.openSync(\".K.tmp\", \"w\");
        fs.writeSync(fd, process.env.NEW); fs.fsyncSync(fd); fs.closeSync(fd); fs.renameSync(\".K.tmp\", \"K\")"'
    good 'node -e "
        const stream = require(\"fs\").createWriteStream(\"K\");
        for (const c of process.env.NEW) stream.write(c);
        stream.end()"'
    bad 'node -e "require(\"fs\").writeFileSync(\"K\", \"oops\")"'
    bad 'node -e "require(\"fs\").promises.writeFile(\"K\", \"{\\\"half\\\":\")"'
    bad 'node -e "
        const fs = require(\"fs\");
        fs.writeFileSync(\".t\", \"oops\");
        try { fs.renameSync(\".t\", \"K\") } finally { fs.unlinkSync(\".t\") }"'
}

# Directories of documents, in and out.
trees()
{
    local from=$T_DIR/from to=$T_DIR/to i
    mkdir "$from"
    for i in {1..20}; do
        echo "{\"i\":$i}" >"$from/k$i"
    done
    echo "$NEW" >"$from/K"
    prepare
    "$@" "$from" "$S"
    t_run diff -r "$from" "$S"
    t_eq "$T_STATUS$T_OUT" 0 "in"
    py check "$name"
    "$@" "$S" "$to"
    t_run diff -r "$S" "$to"
    t_eq "$T_STATUS$T_OUT" 0 "out"
    t_eq "$(stat -c %Y "$to/k7")" "$(stat -c %Y "$S/k7")" "the time of the last set"
    rm -rf "$S"/*
    t_eq "$(ls -A "$S")" ""
    rm -rf "$from" "$to"
}
by_rsync() { rsync -a "$1/" "$2/"; }
by_rsync_inplace() { rsync -a --inplace --checksum "$1/" "$2/"; }
by_cp() { mkdir -p "$2" && cp -a "$1/." "$2/"; }
by_tar() { mkdir -p "$2" && tar -C "$1" -cf - . | tar -C "$2" -xf -; }
by_tar_overwrite() { mkdir -p "$2" && tar -C "$1" -cf - . | tar -C "$2" --overwrite -xf -; }

bad_trees()
{
    bad 'cp "$BAD" "$T_DIR/K"; rsync -a "$T_DIR/K" ./'
    bad 'cp "$BAD" "$T_DIR/K"; rsync -a --inplace "$T_DIR/K" ./'
    bad 'cp "$HALF" "$T_DIR/K"; rsync -a "$T_DIR/K" ./'
    bad 'cp "$BAD" "$T_DIR/K"; tar -C "$T_DIR" -cf - K | tar --overwrite -xf -'
    bad 'cp "$HALF" "$T_DIR/K"; tar -C "$T_DIR" -cf - K | tar --overwrite -xf -'
}

in_git()
{
    local git=(git --git-dir="$T_DIR/git" -c user.name=n -c user.email=e@example.org)
    prepare
    git init -q --bare "$T_DIR/git"
    git --git-dir="$T_DIR/git" config core.bare false
    echo '"second"' >"$S/second"
    jq -nc '[range(50000)]' >"$S/long" # which git maps
    "${git[@]}" --work-tree="$S" add -A
    "${git[@]}" --work-tree="$S" commit -qm one
    t_eq "$("${git[@]}" show HEAD:K)" "$OLD"
    t_eq "$("${git[@]}" show HEAD:second)" '"second"'
    "${git[@]}" show HEAD:long | cmp - "$S/long"
    t_eq "$("${git[@]}" --work-tree="$S" status --porcelain)" "" "status"
    echo "$NEW" >"$S/K"
    rm "$S/second"
    t_eq "$("${git[@]}" --work-tree="$S" status --porcelain)" $' M K\n D second' "status"
    "${git[@]}" --work-tree="$S" checkout -q -- K second
    t_eq "$(cat "$S/K" "$S/second")" "$OLD"$'\n"second"' "checkout"
    py check "$name"
}

t_mount
t_test "bash, dash" shells
t_test "cp, install, mv, tee, dd and others" core
t_test "jq, sponge, sed -i, perl -i, awk" filters
t_test "vim" py vim
t_test "vim, backupcopy=yes" py vim backupcopy=yes
t_test "vim, backupcopy=no" py vim backupcopy=no
t_test "vim without backup and swap file" py vim nowritebackup noswapfile
t_test "vim with backup" py vim backup backupdir=. backupcopy=auto
t_test "vim, a new file" py vim_new_file
t_test "vim, killed" py vim_killed
t_test "nano" py nano
t_test "nano with backup" py nano -B
t_test "nano with lock file" py nano -G
t_test "python's json" py python_json
t_test "python's Popen" py python_popen
t_test "python's tempfile" py python_tempfile
if command -v node >/dev/null; then
    t_test "node" in_node
fi
t_test "rsync" trees by_rsync
t_test "rsync --inplace" trees by_rsync_inplace
t_test "cp -a" trees by_cp
t_test "tar" trees by_tar
t_test "tar --overwrite" trees by_tar_overwrite
t_test "rsync and tar, of what is not JSON" bad_trees
t_test "git" in_git
t_test "many programs" py many_programs
t_unmount
