#!/bin/bash
# Builds `livling`, the small Debian 12 live image of the end-to-end test, and leaves two ISOs of it in OUTDIR:
# livenet.iso, which dracut's own modules fetch (flags="dmsquash"), and kiwi-live.iso, which KIWI 10's module fetches.
# usage: build.sh OUTDIR        (normally called by `cargo xtask e2e live`, which also keeps the result)
#
# What reports to the server is not part of the description: `kiwispray image hook --task discover` has put it there before.
# Needs root, loop devices and the Debian packages that `cargo xtask packages kiwi` installs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:?usage: build.sh OUTDIR}")
work=$out.building

# The mirror is the one this machine's own apt uses; the image is always Debian 12, whose KIWI builds it.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | grep -v security | head -n 1 || true)
: "${mirror:?apt names no Debian mirror: the image is built from the one that this machine uses}"

rm -rf "$work"
mkdir -p "$work/whole"
cp -r "$here/description" "$work/description"

# Debian's KIWI is older than 10.2.24, from which on KIWI's own module fetches ISOs: the module is the newer one's.
/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/pip" download -q --no-deps --no-binary :all: --dest "$work" kiwi==10.3.9
echo "a90a101816e4ed6b3f72c981ad01000d1510add79fb988a47a03ed7909df3051  $work/kiwi-10.3.9.tar.gz" | sha256sum --check
modules=$work/description/root/usr/lib/dracut/modules.d
mkdir -p "$modules"
tar -xf "$work/kiwi-10.3.9.tar.gz" -C "$modules" --strip-components=3 kiwi-10.3.9/dracut/modules.d/55kiwi-live

chmod -R u=rwX,go=rX "$work/description" # what the checkout's umask did must not reach the image
sed -i "s#@DEBIAN_MIRROR@#${mirror%/}#" "$work/description/config.xml"

# A clean environment: KIWI must run on the system's own Python.
kiwi() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 ${http_proxy:+http_proxy="$http_proxy"} \
    /usr/bin/python3 /usr/bin/kiwi-ng --config "$here/kiwi.yml" --debug --profile "$@"
}

kiwi livenet system prepare --description "$work/description" --root "$work/root"
for profile in livenet kiwi-live; do
  kiwi "$profile" system create --root "$work/root" --target-dir "$work/$profile"
  mv "$work/$profile"/*.iso "$work/whole/$profile.iso"
done

# They appear under their final names when both are whole.
mv "$work/whole" "$out"
rm -rf "$work"
