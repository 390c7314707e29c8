#!/bin/bash
# Builds `sprayling`, the small Debian 12 OEM image of the deployment test, and leaves its PXE archive in OUTDIR.
# usage: build.sh OUTDIR        (normally called by `cargo xtask e2e kiwi`, which also keeps the result)
#
# What reports to the server is not part of the description: `kiwispray image hook` has put it there before.
# Needs root, loop devices and the Debian packages that `cargo xtask packages kiwi` installs. 4 to 11 minutes on 2 cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:?usage: build.sh OUTDIR}")
work=$out.building

# The mirror is the one this machine's own apt uses; the image is always Debian 12, whose KIWI builds it.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | grep -v security | head -n 1 || true)
: "${mirror:?apt names no Debian mirror: the image is built from the one that this machine uses}"

rm -rf "$work"
mkdir -p "$work"
cp -r "$here/description" "$work/description"
chmod -R u=rwX,go=rX "$work/description" # what the checkout's umask did must not reach the image
sed -i "s#@DEBIAN_MIRROR@#${mirror%/}#" "$work/description/config.xml"

# A clean environment: KIWI must run on the system's own Python, and must find the partx shim first.
env -i PATH="$here/shim:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root LANG=C.UTF-8 \
  ${http_proxy:+http_proxy="$http_proxy"} \
  /usr/bin/python3 /usr/bin/kiwi-ng --config "$here/kiwi.yml" --debug system build \
  --description "$work/description" --target-dir "$work/image"

# Only the archive is kept; it appears under its final name when it is whole.
mkdir -p "$out"
mv "$work"/image/*.install.tar* "$out/"
rm -rf "$work"
