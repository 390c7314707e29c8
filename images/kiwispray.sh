# What the scripts that run on a booted machine share: who called us, HTTP, reports, safe words. Read by `.`, never run.
#
# For every POSIX shell, busybox's too. It needs curl or a wget (busybox's or GNU's), od and awk. All that it knows of the
# server stands in one word of the kernel command line, razorurl=http://SERVER/post-install?id=ID&bootid=BOOTID, which the
# server puts there at every boot. The bootid is a secret: it is never printed.
#
# Text from the machine (DMI strings, names of disks, output of tools) reaches the server only through ks_json and
# ks_encoded, which know every byte; text from the server is compared and quoted, never evaluated.

ks_id= ks_bootid= ks_server= ks_status=000 ks_silence="-T 60"
ks_dir=${KIWISPRAY_DIR:-/run/kiwispray}

say() { printf 'kiwispray: %s\n' "$*"; }

# ks_argument NAME: the value of NAME=… on the kernel command line; empty if it is not there.
ks_argument() (
    # Words of the command line are no patterns for file names.
    set -f
    # shellcheck disable=SC2013 # words are what is wanted
    for ks_word in $(cat "${KIWISPRAY_CMDLINE:-/proc/cmdline}"); do
        case $ks_word in
            "$1"=*) printf '%s\n' "${ks_word#*=}" ;;
        esac
    done | tail -n 1
)

# Finds out who this boot is. Fails when the command line does not say it: then there is nobody to report to.
ks_begin() {
    mkdir -p "$ks_dir" || return 1
    chmod 700 "$ks_dir"
    ks_url=$(ks_argument razorurl)
    ks_server=${ks_url%%/post-install\?*}
    ks_parameters=${ks_url#*\?}
    case $ks_url in
        http://*/post-install\?id=*\&bootid=* | https://*/post-install\?id=*\&bootid=*) ;;
        *) say "the kernel command line has no razorurl= of a kiwispray server"; return 1 ;;
    esac
    ks_id=${ks_parameters#id=}
    ks_id=${ks_id%%&*}
    ks_bootid=${ks_parameters#*&bootid=}
    ks_bootid=${ks_bootid%%&*}
    case $ks_id in '' | *[!0-9]*) say "razorurl= names no host"; return 1 ;; esac
    case $ks_bootid in '' | *[!A-Za-z0-9-]*) say "razorurl= has no bootid"; return 1 ;; esac
}

# ks_call NAME: the URL of a call of this boot. ks_file NAME: the URL of a file of this boot.
ks_call() { printf '%s/%s?id=%s&bootid=%s\n' "$ks_server" "$1" "$ks_id" "$ks_bootid"; }
ks_file() { printf '%s/b/%s/%s\n' "$ks_server" "$ks_bootid" "$1"; }

# ks_http URL SAVE [FORM]: one request, a POST when there is a file FORM to send. Sets ks_status: the three digits that the
# server answered, or 000 when nothing whole came. Silence is given up after a minute, a long answer is not.
ks_http() {
    ks_status=000
    # What an earlier request left there is no answer to this one.
    rm -f "$2"
    if command -v curl >/dev/null 2>&1; then
        # The URL is read from a file, as other users could see it among the processes.
        printf 'url = "%s"\n' "$1" >"$ks_dir/request"
        ks_status=$(curl -sS -K "$ks_dir/request" -o "$2" -w '%{http_code}' --location --max-redirs 5 \
            --connect-timeout 20 --speed-limit 1 --speed-time 60 ${3:+--data-binary "@$3"} 2>"$ks_dir/http.log") || ks_status=000
    else
        # GNU's would try twenty times by itself.
        ks_once=
        wget --help 2>&1 | grep -q BusyBox || ks_once=--tries=1
        ks_whole=true
        { ks_wget "$@" || ks_whole=false; } 2>"$ks_dir/http.log"
        ks_status=$(sed -n 's:.*HTTP/1\.[01] \([0-9][0-9][0-9]\).*:\1:p' "$ks_dir/http.log" | tail -n 1)
        # An answer that broke off is none.
        case $ks_whole$ks_status in
            true???) ;;
            false[345]??) ;;
            *) ks_status=000 ;;
        esac
    fi
    rm -f "$ks_dir/request"
    [ "$ks_status" = 200 ]
}

# ks_wget URL SAVE [FORM]
ks_wget() {
    # shellcheck disable=SC2086 # these are none or one word, or two
    wget $ks_once $ks_silence -S -O "$2" ${3:+--post-file="$3"} "$1"
    ks_code=$?
    if [ "$ks_code" -eq 139 ] && [ -n "$ks_silence" ]; then
        # Some static busybox dies of -T.
        ks_silence=
        timeout 3600 wget $ks_once -S -O "$2" ${3:+--post-file="$3"} "$1"
        ks_code=$?
    fi
    return "$ks_code"
}

# ks_ask SECONDS URL SAVE [FORM]: the same with patience. The server may be starting, or wait for a plugin (503). An answer that
# would be the same again ends it at once.
ks_ask() {
    ks_until=$(($(ks_uptime_s) + $1))
    shift
    while :; do
        ks_http "$@" && return 0
        case $ks_status in 3?? | 400 | 401 | 403 | 404 | 405 | 409 | 410 | 413) return 1 ;; esac
        [ "$(ks_uptime_s)" -lt "$ks_until" ] || return 1
        say "no answer yet ($ks_status), asking again"
        sleep "${KIWISPRAY_PAUSE:-10}"
    done
}

# Seconds since the start: a machine's clock may jump, this does not.
ks_uptime_s() { cut -d . -f 1 /proc/uptime; }

# The bytes of standard input as one JSON string, whatever they are: quotes, backslashes and control characters are escaped,
# UTF-8 is kept (as \u….), what is no UTF-8 becomes U+FFFD. Blanks and newlines at both ends are left out.
ks_json() {
    LC_ALL=C od -An -v -tu1 | LC_ALL=C awk '
        function put(code) {
            if (code > 65535) {
                code -= 65536
                out = out sprintf("\\u%04x\\u%04x", 55296 + int(code / 1024), 56320 + code % 1024)
            } else if (code == 34 || code == 92) out = out "\\" sprintf("%c", code)
            else if (code < 32 || code > 126) out = out sprintf("\\u%04x", code)
            else out = out sprintf("%c", code)
        }
        { for (i = 1; i <= NF; i++) byte[n++] = $i + 0 }
        END {
            first = 0
            while (first < n && byte[first] <= 32) first++
            while (n > first && byte[n - 1] <= 32) n--
            for (i = first; i < n; i++) {
                b = byte[i]
                more = b < 128 ? 0 : b >= 194 && b < 224 ? 1 : b >= 224 && b < 240 ? 2 : b >= 240 && b < 245 ? 3 : -1
                code = more < 1 ? b : more == 1 ? b - 192 : more == 2 ? b - 224 : b - 240
                for (j = 1; j <= more; j++) {
                    c = i + j < n ? byte[i + j] : 0
                    if (c < 128 || c > 191) { more = -1; break }
                    code = code * 64 + c - 128
                }
                # Longer than needed, a half of a pair, beyond the end of Unicode.
                if (more == 2 && (code < 2048 || code >= 55296 && code < 57344)) more = -1
                if (more == 3 && (code < 65536 || code > 1114111)) more = -1
                if (more < 0) put(65533)
                else { put(code); i += more }
            }
            printf "\"%s\"\n", out
        }'
}

# The bytes of standard input as a value in a URL or form.
ks_encoded() {
    LC_ALL=C od -An -v -tu1 | LC_ALL=C awk '
        { for (i = 1; i <= NF; i++) {
            b = $i + 0
            if (b >= 48 && b <= 57 || b >= 65 && b <= 90 || b >= 97 && b <= 122 || b == 45 || b == 46 || b == 95)
                printf "%c", b
            else printf "%%%02X", b
        } }
        END { print "" }'
}

# The step is done. Fails when the server cannot be told, for ten minutes.
ks_finish() {
    ks_ask 600 "$(ks_call finish)" "$ks_dir/answer" && return 0
    say "the server did not take the report: $ks_status"
    return 1
}

# ks_fail REASON: the step failed. The host holds, with the reason on console, list and timeline.
ks_fail() {
    say "failed: $1"
    ks_reason=$(printf '%s' "$1" | LC_ALL=C tr -cd '\40-\176' | cut -c 1-300 | ks_encoded)
    ks_ask 600 "$(ks_call fail)&reason=$ks_reason" "$ks_dir/answer" && return 0
    say "the server did not take the report: $ks_status"
    return 1
}

# Leaves: what the machine does next, the server says at its next boot. A machine that no server booted, where someone tries a
# script, stays up.
ks_reboot() {
    grep -q 'razorurl=' /proc/cmdline || return 0
    sync
    if [ -d /run/systemd/system ]; then
        systemctl --no-block reboot
    else
        reboot -f
    fi
}

# ks_run FUNCTION: the frame of a script. FUNCTION returns 0 when all is done, else leaves the reason in ks_reason. After a
# failure the machine reboots too, as the hold on its console says why; a person gets a moment to read.
ks_run() {
    ks_begin || exit 1
    ks_reason=
    # A shell that ends of a fault in the middle still says so.
    trap 'ks_failed "the script ended before its end"' EXIT
    if "$1"; then
        trap - EXIT
        ks_finish && say "finished"
        ks_reboot
    else
        trap - EXIT
        ks_failed "${ks_reason:-$1 failed}"
    fi
}

# ks_failed REASON: reports it, and leaves.
ks_failed() {
    ks_fail "$1"
    sleep "${KIWISPRAY_PAUSE:-10}"
    ks_reboot
}

# ks_because REASON: `… || ks_because REASON || return` names the reason and fails.
ks_because() {
    ks_reason=$1
    return 1
}
