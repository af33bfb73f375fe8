#!/usr/bin/env bash
# pythons.sh SUITE VERSION FOLDER - unpack Debian's CPython VERSION (as 3.14) of another suite, with
# the C library that it needs, into FOLDER, to be run by chroot. Does nothing when it is there: 20 MB
# are downloaded once.
set -euo pipefail
suite=$1 version=$2 folder=$(realpath -m "$3")
[ -e "$folder/.ok" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root/opt"
uri=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$work/sources.list"
options=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=-
	-o Dir::State::lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache"
	-o APT::Sandbox::User=root)
apt-get "${options[@]}" update >&2
cd "$work"
apt-get "${options[@]}" download "python$version-minimal" "libpython$version-minimal" \
	"libpython$version-stdlib" libc6 zlib1g libexpat1 libffi8 >&2
for file in *.deb; do dpkg-deb -x "$file" root; done
for link in bin lib lib64; do [ -e "root/$link" ] || ln -s "usr/$link" "root/$link"; done
chroot root "/usr/bin/python$version" -c 'import ctypes, threading'
touch root/.ok
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv root "$folder"
