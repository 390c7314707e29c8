#!/bin/sh
# First boot of an installed system: fetches the script that razorurl= names, runs it, reboots. `kiwispray image hook` puts
# this, and a unit that starts it, into a KIWI description.
#
# Only the installer's kexec passes razorurl=, so a boot from the disk never comes here. A server that is restarting, or waits for a
# plugin (503), is asked again for 15 minutes; after that, and when the script fails, the server is told so, and the
# system stays up for whoever comes to look. The script itself reports that the step is done.
# kiwispray.reboot=no on the kernel command line: the system goes on instead of rebooting.
set -u
. "${0%/*}/kiwispray.sh"

patience_s=${KIWISPRAY_PATIENCE:-900}

# run FILE: by the interpreter that its first line names, as a file below /run may not be started by itself.
run() (
    interpreter=$(sed -n '1s/^#! *//p' "$1")
    set -f
    # shellcheck disable=SC2086 # an interpreter may have an argument
    ${interpreter:-/bin/sh} "$1"
)

first_boot() {
    say "fetches the post-install script"
    if ! ks_ask "$patience_s" "$(ks_call post-install)" "$ks_dir/post-install"; then
        ks_because "the post-install script could not be fetched: $ks_status"
        return
    fi
    run "$ks_dir/post-install"
    status=$?
    rm -f "$ks_dir/post-install"
    [ "$status" -eq 0 ] || ks_because "the post-install script ended with $status"
}

ks_begin || exit 1
if ! first_boot; then
    ks_fail "$ks_reason"
    exit 1
fi
say "the post-install script is done"
[ "$(ks_argument kiwispray.reboot)" = no ] || ks_reboot
