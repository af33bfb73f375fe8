#!/usr/bin/env bash
# Install the named Debian packages that are missing. Does nothing, quickly, when all are there.
# Usage: scripts/debian_packages.sh PACKAGE...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/step.sh"

installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
missing=()
for package in "$@"; do
	grep -qx "installed $package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "These Debian packages are missing: ${missing[*]}" >&2
	echo "Install them with: sudo apt-get install ${missing[*]}" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# A repository of somebody else that does not answer is no reason to fail: the install below decides.
step "the lists of Debian packages" apt-get update -qq ||
	echo "apt-get update had errors; trying with the package lists there are" >&2
step "installing Debian packages: ${missing[*]}" \
	apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 \
	-o DPkg::Lock::Timeout=300 "${missing[@]}"
