# Sourced by what sets a checkout up: says each step on standard error as it begins, every 10 s (STEP_TELL_S) while
# it lasts and when it is over. The step's own output is shown only where it fails.
# Usage: step WORDS COMMAND [ARGUMENT...]

step() {
	local words=$1 begun=$SECONDS output status=0 teller
	shift
	output=$(mktemp)
	echo "  .. $words" >&2
	# `read` waits without a process of its own, which would outlive this one. Where the shell is
	# gone, it was ended by Ctrl-C, which a background job does not hear of.
	{
		exec 9<> <(:)
		while ! read -rt "${STEP_TELL_S:-10}" -u 9 && kill -0 $$ 2>/dev/null; do
			echo "  .. $words ($((SECONDS - begun)) s so far)" >&2
		done
	} &
	teller=$!
	"$@" >"$output" 2>&1 || status=$?
	kill "$teller" 2>/dev/null || true
	wait "$teller" 2>/dev/null || true
	if [ "$status" -eq 0 ]; then
		echo "  ok $words ($((SECONDS - begun)) s)" >&2
	else
		echo "  !! $words: status $status after $((SECONDS - begun)) s" >&2
		tail -n 40 "$output" >&2
	fi
	rm -f "$output"
	return "$status"
}
