#!/usr/bin/env bash
# sushy-tools, OpenStack's Redfish emulator, on 127.0.0.1. It runs until it is killed, and ends what it started.
#
#   start.sh fake PORT DIR              one system that exists in its books only and has no BIOS, behind a password
#   start.sh libvirt PORT DIR BOOTFILE  one virtual machine without KVM, of a libvirt of its own, that boots BOOTFILE from its network
#
# Nothing outside DIR and ~/.cache/kiwispray/peers is touched. Prints `ready` when it answers.
set -euo pipefail
DRIVER=$1 PORT=$2 DIR=$3 BOOTFILE=${4:-}
VENV=${KIWISPRAY_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/kiwispray/peers}/sushy-tools-2.2.0
UUID=27946b59-9e44-4fa7-8e91-f3527a1ef0b1 MAC=52:54:00:bb:00:01
mkdir -p "$DIR/state" "$(dirname "$VENV")"

# Two tests may come here at once. Debian's Python, as Debian's libvirt is for that one.
exec 9>"$VENV.lock"; flock 9
if [ ! -e "$VENV/complete" ]; then
    rm -rf "$VENV"
    /usr/bin/python3 -m venv --system-site-packages "$VENV"
    "$VENV/bin/pip" install -q 'sushy-tools==2.2.0' bcrypt
    touch "$VENV/complete"
fi
exec 9>&-

cat > "$DIR/emulator.conf" <<CONF
SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'
SUSHY_EMULATOR_LISTEN_PORT = $PORT
SUSHY_EMULATOR_STATE_DIR = '$DIR/state'
CONF

started=()
stop() { for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; }
trap 'stop; exit 0' TERM INT
trap stop EXIT

fake() {
    local hash
    hash=$("$VENV/bin/python" -c "import bcrypt; print(bcrypt.hashpw(b'kiwispray', bcrypt.gensalt(4, b'2b')).decode())")
    echo "admin:$hash" > "$DIR/htpasswd"
    cat >> "$DIR/emulator.conf" <<CONF
SUSHY_EMULATOR_AUTH_FILE = '$DIR/htpasswd'
SUSHY_EMULATOR_FAKE_DRIVER = True
SUSHY_EMULATOR_FAKE_SYSTEMS = [{'uuid': '$UUID', 'name': 'node', 'power_state': 'Off', 'nics': [{'mac': '$MAC', 'ip': '10.20.0.2'}]}]
CONF
}

# A libvirt of an ordinary user: as root it would be the machine's own.
as_user() {
    local env=(env LIBVIRT_AUTOSTART=0 "HOME=$DIR" "XDG_RUNTIME_DIR=$DIR/run" "XDG_CONFIG_HOME=$DIR/config" "XDG_CACHE_HOME=$DIR/cache" "XDG_DATA_HOME=$DIR/data")
    if [ "$(id -u)" = 0 ]; then exec setpriv --reuid=65534 --regid=65534 --clear-groups "${env[@]}" "$@"; else exec "${env[@]}" "$@"; fi
}

libvirt() {
    mkdir -p "$DIR"/{run,config/libvirt,cache,data}
    echo 'stdio_handler = "file"' > "$DIR/config/libvirt/qemu.conf"
    # libvirt has no word for the file that QEMU's own network offers.
    cat > "$DIR/qemu" <<'QEMU'
#!/usr/bin/env bash
arguments=()
for argument in "$@"; do
    case $argument in
        '{"type":"user"'*) argument="${argument%\}},\"bootfile\":\"BOOTFILE\"}" ;;
        user,*) argument="$argument,bootfile=BOOTFILE" ;;
    esac
    arguments+=("$argument")
done
exec /usr/bin/qemu-system-x86_64 "${arguments[@]}"
QEMU
    sed -i "s|BOOTFILE|$BOOTFILE|" "$DIR/qemu"
    cat > "$DIR/machine.xml" <<XML
<domain type='qemu'><name>node</name><uuid>$UUID</uuid><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
<devices><emulator>$DIR/qemu</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$DIR/disk'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='$MAC'/><model type='virtio'/></interface>
<serial type='file'><source path='$DIR/console'/></serial></devices></domain>
XML
    truncate -s 16M "$DIR/disk"
    chmod 755 "$DIR" "$DIR/qemu"
    [ "$(id -u)" != 0 ] || chown -R 65534:65534 "$DIR"
    (as_user /usr/sbin/libvirtd) > "$DIR/libvirtd.log" 2>&1 9>&- & started+=($!)
    local tries=0
    until (as_user virsh -q -c qemu:///session define "$DIR/machine.xml") > "$DIR/virsh.log" 2>&1; do
        tries=$((tries + 1)); [ $tries -lt 100 ] || { cat "$DIR/virsh.log"; exit 1; }
        sleep 0.2
    done
    echo "SUSHY_EMULATOR_LIBVIRT_URI = 'qemu+unix:///session?socket=$DIR/run/libvirt/libvirt-sock'" >> "$DIR/emulator.conf"
    stop() {
        (as_user virsh -q -c qemu:///session destroy node) > /dev/null 2>&1 || true
        for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
        wait
    }
}

case $DRIVER in fake) fake ;; libvirt) libvirt ;; *) echo "unknown driver $DRIVER"; exit 2 ;; esac
"$VENV/bin/sushy-emulator" --config "$DIR/emulator.conf" > "$DIR/emulator.log" 2>&1 & started+=($!)
until code=$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/redfish/v1/") && [ "$code" != 000 ]; do
    kill -0 "${started[-1]}" 2>/dev/null || { cat "$DIR/emulator.log"; exit 1; }
    sleep 0.1
done
echo ready
wait
