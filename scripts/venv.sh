#!/usr/bin/env bash
# Make the virtual environment, if there is none, and install the project into it in place.
# Usage: scripts/venv.sh VENV EXTRA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/step.sh
venv=$1 extra=$2

# The servers of the demo run as another user and read their programs from here.
umask 022
# The distribution's interpreter: the agent is given its own copy of the same one, and bcc's Python
# binding exists for no other.
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
	echo "$python is older than Python 3.10; name another with PYTHON=" >&2
	exit 1
}
# An environment whose interpreter is gone (a system upgrade) is made anew.
"$venv/bin/python" -c '' 2>/dev/null ||
	step "making the virtual environment $venv" "$python" -m venv --clear "$venv"
# Fetching what is needed to build, then what is needed to run: a network may need a second try.
for try in 1 2 3; do
	step "pip: Flamefleet and the Python packages of its extra [$extra]" \
		"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
		--editable ".[$extra]" && exit 0
	echo "pip failed (try $try of 3)" >&2
	sleep $((try * 3))
done
exit 1
