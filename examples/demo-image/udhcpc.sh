#!/bin/sh
# What busybox's DHCP client runs.
case $1 in
    bound | renew)
        ip address flush dev "$interface"
        ip address add "$ip/${mask:-24}" dev "$interface"
        if [ -n "$router" ]; then ip route add default via "${router%% *}"; fi
        ;;
esac
exit 0
