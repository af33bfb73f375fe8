"""How large a collector's maps have to be, inside a fixed budget of kernel memory."""

from typing import NamedTuple

MAP_BUDGET_BYTES = 16 * 1024 * 1024
MIN_ENTRIES = 1024
MAX_ENTRIES = 16_384  # the sampler ends an interval at half as many stacks
MIN_RING_BYTES = 256 * 1024
MAX_RING_BYTES = 2 * 1024 * 1024

# A preallocated entry: 48 bytes of head (struct htab_elem), key and value, and its share of the
# buckets (16 bytes each, their number rounded up to a power of two).
_ENTRY_HEAD_BYTES = 48
_BUCKET_BYTES = 16
_VALUE_BYTES = 8
# The ring buffer takes up what a second of samples sends if every stack is new. Measured on
# servers a stack has 20 to 60 frames; it is read twice a second, so this leaves room for a delay.
_RING_BYTES_A_SAMPLE = 1024


class MapSizes(NamedTuple):
    count_entries: int  # of each of the two count maps
    ring_bytes: int
    total_bytes: int  # estimate of what all maps take in kernel memory


def next_power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def plan_map_sizes(
    rate_hz: int,
    cpus: int,
    interval_s: float,
    max_samples: int,
    key_bytes: int,
    per_cpu_bytes: int,
) -> MapSizes:
    """Sizes for `cpus` CPUs sampled `rate_hz` times a second and drained every `interval_s`.

    A count map holds twice the samples of an interval, so that it cannot fill even when every
    sample is of another stack and the drain comes late; but at most `max_samples`, MAX_ENTRIES,
    and not more than fits MAP_BUDGET_BYTES. Beyond that the kernel program counts what it could
    not keep.
    """
    samples_a_second = rate_hz * cpus
    ring_bytes = next_power_of_two(samples_a_second * _RING_BYTES_A_SAMPLE)
    ring_bytes = min(max(ring_bytes, MIN_RING_BYTES), MAX_RING_BYTES)
    entry_bytes = _ENTRY_HEAD_BYTES + key_bytes + _VALUE_BYTES
    # the kernel adds a spare entry for each CPU to each count map
    fixed_bytes = ring_bytes + cpus * (per_cpu_bytes + 2 * entry_bytes) + 5 * 4096
    affordable = (MAP_BUDGET_BYTES - fixed_bytes) // 2 // (entry_bytes + 2 * _BUCKET_BYTES)
    wanted = max(next_power_of_two(round(samples_a_second * interval_s * 2)), MIN_ENTRIES)
    entries = max(min(wanted, affordable, max_samples, MAX_ENTRIES), 1)
    count_bytes = entries * entry_bytes + next_power_of_two(entries) * _BUCKET_BYTES
    return MapSizes(entries, ring_bytes, fixed_bytes + 2 * count_bytes)
