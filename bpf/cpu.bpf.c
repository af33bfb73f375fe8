// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * CPU sampling: counts (process, thread name, cgroup, stack) and sends every stack once a
 * generation.
 *
 * Hook:           perf_event, software CPU clock, one event a CPU
 * Lowest kernel:  5.8 (ring buffer), with BTF
 * Cost an event:  3 to 7 us in the program (5 with a user stack of 40 frames), 0.7 us on an
 *                 idle CPU; the timer interrupt around it costs 10 to 20 us on a virtual
 *                 machine, which the agent calibrates
 *
 * Names that the kernel shows begin with ff_: `flamefleet-agent detach` finds them by that. Lost
 * and left-out samples are counted in `ff_counters`, never logged.
 */
#include "kernel.h"
#include "events.h"
#include "python_events.h"
#include "hash.h"

#ifndef FLAMEFLEET_BCC /* there user space makes maps and writes settings into the source */

/* The stack and probe-read helpers are open to GPL-compatible programs only. */
char LICENSE[] SEC("license") = "GPL";

/* The one read-only global: user space sets it as a whole before loading. */
const volatile struct settings settings = {};

/*
 * Hash maps used from a perf event have to be preallocated. User space sets both sizes, switches
 * by control.generation, and drains the one not in use. No per-CPU values: they would multiply
 * the memory by the number of CPUs, for an increment that hardly ever contends.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct sample_key);
	__type(value, __u64);
	__uint(max_entries, 1024);
} ff_counts_even SEC(".maps"), ff_counts_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} ff_stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct control);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
} ff_control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counters);
	__uint(max_entries, 1);
} ff_counters SEC(".maps");

/* A stack_event is larger than the 512 bytes of BPF stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct stack_event);
	__uint(max_entries, 1);
} ff_scratch SEC(".maps");

#endif

#include "namespace.h"
#include "exclude.h"
#ifndef FLAMEFLEET_BCC /* there stacks are walked by frame pointers */
#include "unwind.h"
#include "user.h"
#include "python.h"
#include "python_walk.h"
#include "python_names.h"
#endif
#include "stack.h"

/* Whether the walk ended in code that user space knows, whose rows are still being made. */
static __always_inline bool is_pending(void)
{
#ifdef FLAMEFLEET_BCC
	return false;
#else
	struct unwind_state *state = unwind_state();

	return settings.unwind && state && state->is_pending;
#endif
}

/*
 * User space is called for what cannot wait: a process or mapping that it does not know, which may
 * be gone before it is read, and a buffer that fills up.
 */
static __always_inline __u64 wakeup_flags(const struct stack_event *event)
{
	__u32 end = (event->key.flags & STACK_END_MASK) >> STACK_END_SHIFT;
	bool is_unknown = !(event->key.flags & SAMPLE_KERNEL_THREAD) &&
			  (end == STACK_NO_USER || (end == STACK_NO_MAPPING && !is_pending()));
	__u64 waiting = bpf_ringbuf_query(MAP(ff_stacks), BPF_RB_AVAIL_DATA);

	if (is_unknown || waiting > bpf_ringbuf_query(MAP(ff_stacks), BPF_RB_RING_SIZE) / 4)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void count_sample(struct stack_event *event, __u64 depth, void *counts,
					 struct counters *counter)
{
	__u64 one = 1, size = offsetof(struct stack_event, words) + depth * sizeof(__u64);
	__u64 *count = bpf_map_lookup_elem(counts, &event->key);

	if (!count) {
		if (bpf_map_update_elem(counts, &event->key, &one, BPF_NOEXIST) == 0) {
			counter->samples++;
#ifndef FLAMEFLEET_BCC
			define_python(event, counter);
#endif
			barrier_var(size); /* or the compiler checks another register */
			if (size > sizeof(*event) ||
			    bpf_ringbuf_output(MAP(ff_stacks), event, size, wakeup_flags(event)))
				counter->ring_full++;
			return;
		}
		/* Full, or another CPU inserted the same key since the first look. */
		count = bpf_map_lookup_elem(counts, &event->key);
		if (!count) {
			counter->count_map_full++;
			return;
		}
	}
	__sync_fetch_and_add(count, 1);
	counter->samples++;
}

static __always_inline void take_sample(struct sample_context *ctx, struct control *state,
					struct counters *counter)
{
	__u32 zero = 0;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct stack_event *event = bpf_map_lookup_elem(MAP(ff_scratch), &zero);
	__u32 generation = state->generation;
	__u64 depth;

	if (!event)
		return;
	event->key.tgid =
	    settings.pid_namespace ? namespaced_tgid(leader) : bpf_get_current_pid_tgid() >> 32;
	if (!event->key.tgid) {
		counter->foreign_namespace++;
		return;
	}
	if (settings.only_tgid && event->key.tgid != settings.only_tgid) {
		counter->other_process++;
		return;
	}
	event->key.start_ns = BPF_CORE_READ(leader, start_boottime);
	event->key.exec_id = BPF_CORE_READ(task, self_exec_id);
	event->key.flags = BPF_CORE_READ(task, flags) & PF_KTHREAD ? SAMPLE_KERNEL_THREAD : 0;
	if (settings.exclusions && is_excluded(task, event->key.flags & SAMPLE_KERNEL_THREAD)) {
		counter->excluded++;
		return;
	}
	event->key.cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(event->key.thread_name, sizeof(event->key.thread_name));
	event->generation = generation;
	depth = read_stacks(ctx, event, task, leader);
	if (!depth) {
		counter->stack_error++;
		return;
	}
#ifndef FLAMEFLEET_BCC
	depth += read_python(event, task, leader, counter, state->given_up);
#endif
	event->key.stack_key = hash_stack(event, depth);
	if (generation & 1)
		count_sample(event, depth, MAP(ff_counts_odd), counter);
	else
		count_sample(event, depth, MAP(ff_counts_even), counter);
}

SEC("perf_event")
int ff_sample_cpu(struct sample_context *ctx)
{
	__u32 zero = 0;
	__u64 started_ns = bpf_ktime_get_ns();
	struct counters *counter = bpf_map_lookup_elem(MAP(ff_counters), &zero);
	struct control *state = bpf_map_lookup_elem(MAP(ff_control), &zero);

	if (!counter || !state)
		return 0;
	if (started_ns > state->beat_ns + settings.heartbeat_limit_ns)
		counter->silent++;
	else if (!(__u32)bpf_get_current_pid_tgid())
		counter->idle++;
	else
		take_sample(ctx, state, counter);
	counter->own_ns += bpf_ktime_get_ns() - started_ns;
	return 0;
}
