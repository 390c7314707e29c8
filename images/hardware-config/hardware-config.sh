#!/bin/sh
# Configures hardware by a site's own tools: fetches a tarball, unpacks it in memory, runs the `run` in it.
#
# The tarball is hardware-config.tar.gz of this image's folder, or what tarball.txt says there: a file name or a URL (its
# template takes the host's metadata hardware_config). `run` is started in the unpacked folder, with host.json (the host as the
# server knows it) beside it. If it leaves a metadata.json there, an object, that is put over the host's metadata. When it ends
# with anything but 0, its last line is the reason that the host holds with.
set -u
. "${0%/*}/kiwispray.sh"

default_tarball=hardware-config.tar.gz

# The URL of the tarball. What stands in tarball.txt is a word from outside: a plain name or a URL, or it is refused.
tarball_url() {
    name=$default_tarball
    if ks_ask 600 "$(ks_file tarball.txt)" "$ks_dir/tarball.txt"; then
        name=$(head -n 1 "$ks_dir/tarball.txt")
    elif [ "$ks_status" != 404 ]; then
        return 1
    fi
    case $name in
        http://*[!A-Za-z0-9._~:/?=,%@+-]* | https://*[!A-Za-z0-9._~:/?=,%@+-]*) return 1 ;;
        http://?* | https://?*) printf '%s\n' "$name" ;;
        '' | .* | *[!A-Za-z0-9._-]*) return 1 ;;
        *) ks_file "$name" ;;
    esac
}

# unpack ARCHIVE DIR: a name that leads out of the folder refuses the whole.
unpack() {
    tar -tzf "$1" >"$ks_dir/names" 2>/dev/null || return 1
    ! grep -Eq '^/|(^|/)\.\.(/|$)' "$ks_dir/names" || return 1
    tar -xzf "$1" -C "$2" 2>"$ks_dir/tar.log"
}

# The last line that says something, without what would steer a terminal.
last_line() {
    LC_ALL=C tr -cd '\12\40-\176' <"$1" | grep -v '^ *$' | tail -n 1 | cut -c 1-200
}

hardware_config() {
    # Not below /run, from which some systems let nothing be started.
    work=$(mktemp -d) || ks_because "there is no room to unpack anything" || return
    url=$(tarball_url) || ks_because "the server names no tarball that could be fetched" || return
    if ! ks_ask 600 "$url" "$ks_dir/tarball"; then
        ks_because "the tarball could not be fetched: $ks_status"
        return
    fi
    unpack "$ks_dir/tarball" "$work" || ks_because "the tarball is damaged, or no tar.gz that stays in its folder" || return
    rm -f "$ks_dir/tarball"
    [ -f "$work/run" ] || ks_because "the tarball has no file run" || return
    ks_ask 600 "$(ks_file host.json)" "$work/host.json" || rm -f "$work/host.json"

    say "runs the hardware configuration"
    chmod 700 "$work/run"
    mkfifo "$ks_dir/output"
    tee "$ks_dir/run.log" <"$ks_dir/output" &
    tee=$!
    # A status is lost in a pipe, so it is none.
    (cd "$work" && exec ./run) >"$ks_dir/output" 2>&1 </dev/null
    status=$?
    # What `run` left running may hold the pipe for ever.
    for second in 1 2 3 4 5; do
        kill -0 "$tee" 2>/dev/null || break
        sleep 1
    done
    kill "$tee" 2>/dev/null
    wait "$tee" 2>/dev/null
    rm -f "$ks_dir/output"
    [ "$status" -eq 0 ] || ks_because "run ended with $status: $(last_line "$ks_dir/run.log")" || return
    [ ! -f "$work/metadata.json" ] || post_metadata "$work/metadata.json"
}

# post_metadata FILE
post_metadata() {
    printf 'metadata=%s' "$(ks_encoded <"$1")" >"$ks_dir/form"
    ks_ask 600 "$(ks_call update)" "$ks_dir/answer" "$ks_dir/form" && return 0
    ks_because "the server did not take metadata.json: $ks_status $(head -n 1 "$ks_dir/answer" 2>/dev/null)"
}

[ -n "${KIWISPRAY_SOURCED:-}" ] || ks_run hardware_config
