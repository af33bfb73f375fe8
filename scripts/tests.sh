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

status=0
"$@" -m "not emulated and not long" || status=$?
echo "tests in the emulator:"
wait "$emulated" || status=$?
emulated=
cat "$report"
exit "$status"
