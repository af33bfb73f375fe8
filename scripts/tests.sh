#!/usr/bin/env bash
# Run every test that is not long: tests.sh PYTEST [OPTION…]. The other kernels boot in an emulator
# beside all other tests, with which they share nothing; their report is printed last.
set -euo pipefail
report=$(mktemp)
temporary=$(mktemp -d)
emulated=
trap '[ -z "$emulated" ] || kill "$emulated" 2>/dev/null || true; rm -rf "$report" "$temporary"' EXIT

# A folder of its own: when pytest starts it closes the common one to other users, whom tests run as.
PYTEST_DEBUG_TEMPROOT=$temporary "$@" -m "emulated and not long" -p no:cacheprovider >"$report" 2>&1 &
emulated=$!

judge() { # an exit status; with options, a choice of tests may leave one of the two without any (5)
	[ "$1" = 0 ] || { [ "$1" = 5 ] && [ "$chosen" = yes ]; } || status=$1
}
status=0
chosen=$([ $# -gt 1 ] && echo yes || echo no)

main=0
"$@" -m "not emulated and not long" || main=$?
judge "$main"
echo "tests in the emulator:"
other=0
wait "$emulated" || other=$?
emulated=
judge "$other"
cat "$report"
exit "$status"
