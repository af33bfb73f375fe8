#!/usr/bin/env bash
# Run every test that is not long, in two processes: tests.sh PYTEST [OPTION…]. Most tests wait more
# than they work, so both together take little more than one of them. The second's report comes last.
set -euo pipefail
report=$(mktemp)
temporary=$(mktemp -d)
beside=
# Debian's and Ubuntu's kernels deny the agent its perf events (docs/security.md): not while it is tested.
paranoid=/proc/sys/kernel/perf_event_paranoid
level=$(cat $paranoid)
if [ "$level" -gt 2 ] && [ -w $paranoid ]; then
	echo "kernel.perf_event_paranoid is $level, which denies profiling: 2 until the tests end"
	echo 2 >$paranoid
fi
leave() {
	[ -z "$beside" ] || kill "$beside" 2>/dev/null || true
	[ "$level" -le 2 ] || echo "$level" >$paranoid || true
	rm -rf "$report" "$temporary"
}
trap leave EXIT

# A folder of its own: when pytest starts it closes the common one to other users, whom tests run as.
PYTEST_DEBUG_TEMPROOT=$temporary "$@" -m "beside and not long" -p no:cacheprovider >"$report" 2>&1 &
beside=$!

judge() { # an exit status; with options, a choice of tests may leave one of the two without any (5)
	[ "$1" = 0 ] || { [ "$1" = 5 ] && [ "$chosen" = yes ]; } || status=$1
}
status=0
chosen=$([ $# -gt 1 ] && echo yes || echo no)

first=0
"$@" -m "not beside and not long" || first=$?
judge "$first"
second=0
wait "$beside" || second=$?
beside=
judge "$second"
cat "$report"
exit "$status"
