#!/bin/sh
# Takes inventory: posts every network card and what the firmware, the processors and the disks say, then goes on to the
# host's next state. Writes nothing.
#
# kiwispray.discover=wait on the kernel command line: it stays, and reboots as soon as the host is given a state. Else it
# reboots at once, and the host waits in iPXE.
set -u
. "${0%/*}/kiwispray.sh"

sys=${KIWISPRAY_SYS:-/sys}
# What fits into a host's metadata with room to spare.
most_disks=100

# field NAME VALUE: `"NAME":VALUE`, with a comma before all but the first. The name is ours.
field() { printf '%s"%s":%s' "$comma" "$1" "$2"; comma=,; }

# text NAME FILE: a field with the text of a file; nothing if it cannot be read or is blank.
text() {
    value=$(cat "$2" 2>/dev/null | ks_json)
    [ "$value" = '""' ] || field "$1" "$value"
}

# number NAME VALUE: a field, if the value is a number.
number() {
    case $2 in '' | *[!0-9]* | 0?*) return 0 ;; esac
    field "$1" "$2"
}

# Serial numbers and UUIDs are readable for root only, others for everyone: what cannot be read is left out.
dmi() {
    comma=
    for path in "$sys"/class/dmi/id/*; do
        case ${path##*/} in
            uevent | modalias | power | subsystem) ;;
            *) [ ! -f "$path" ] || text "${path##*/}" "$path" ;;
        esac
    done
}

# Cards that are hardware: those of bridges, bonds and containers have no device, virtual functions belong to another card.
cards() {
    for path in "$sys"/class/net/*; do
        [ -e "$path/device" ] && [ ! -e "$path/device/physfn" ] && printf '%s\n' "$path"
    done
}

nics() {
    list=
    for path in $(cards); do
        comma=
        printf '%s{' "$list"
        field name "$(printf '%s' "${path##*/}" | ks_json)"
        text mac "$path/address"
        number speed_mbit "$(cat "$path/speed" 2>/dev/null)"
        # Only a card that is up knows.
        text link "$path/operstate"
        driver=$(readlink "$path/device/driver") && field driver "$(printf '%s' "${driver##*/}" | ks_json)"
        printf '}'
        list=,
    done
}

disks() {
    list= count=0
    for path in "$sys"/block/*; do
        [ -e "$path/device" ] || continue
        count=$((count + 1))
        [ "$count" -le "$most_disks" ] || continue
        comma=
        printf '%s{' "$list"
        field name "$(printf '%s' "${path##*/}" | ks_json)"
        number size_mib "$(($(cat "$path/size") / 2048))"
        text vendor "$path/device/vendor"
        text model "$path/device/model"
        text serial "$path/device/serial"
        number rotational "$(cat "$path/queue/rotational" 2>/dev/null)"
        number removable "$(cat "$path/removable" 2>/dev/null)"
        printf '}'
        list=,
    done
}

inventory() {
    comma=
    printf '{"inventory":{'
    field dmi "{$(dmi)}"
    number cpus "$(grep -c '^processor' /proc/cpuinfo)"
    value=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1 | ks_json)
    [ "$value" = '""' ] || field cpu_model "$value"
    number memory_mb "$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)"
    field kernel "$(uname -r | ks_json)"
    field firmware "$([ -d "$sys/firmware/efi" ] && echo '"uefi"' || echo '"bios"')"
    field nics "[$(nics)]"
    field disks "[$(disks)]"
    printf '}}\n'
}

# The form that /update takes. What is no Ethernet address (InfiniBand's are longer) stands in the inventory only.
form() {
    for path in $(cards); do
        mac=$(cat "$path/address" 2>/dev/null)
        case $mac in
            ??:??:??:??:??:??) printf 'mac=%s&' "$mac" ;;
        esac
    done
    printf 'metadata='
    inventory | ks_encoded | tr -d '\n'
}

discover() {
    say "takes inventory"
    ks_settle "$sys/block" "$sys/class/net"
    form >"$ks_dir/form" || ks_because "the inventory could not be written down" || return
    if ! ks_ask 600 "$(ks_call update)" "$ks_dir/answer" "$ks_dir/form"; then
        ks_because "the server did not take the inventory: $ks_status $(head -n 1 "$ks_dir/answer" 2>/dev/null)"
        return
    fi
    say "the server has $(cards | wc -l) network cards"
    [ "$(ks_argument kiwispray.discover)" = wait ] || return 0
    ks_finish || return 0
    say "waits for a state"
    until ks_http "$(ks_call state)" "$ks_dir/state" && [ "$(cat "$ks_dir/state")" != new ]; do
        # This boot is over: someone else decided, or the server forgot it.
        case $ks_status in 401 | 404) break ;; esac
        sleep "${KIWISPRAY_PAUSE:-10}"
    done
}

# Others may want a function of it without the rest.
[ -n "${KIWISPRAY_SOURCED:-}" ] || ks_run discover
