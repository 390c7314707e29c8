#!/bin/bash
set -eux
systemctl enable systemd-networkd.service serial-getty@ttyS0.service live-mark.service
systemctl mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer
echo livling > /etc/hostname
rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /usr/share/info/* /var/lib/apt/lists/* /var/cache/apt/*.bin
apt-get clean
