"""The dictionary that zstd frames of wire version 2 refer to: what batches say again and again.

Part of the format: it never changes. A text that is not here costs a few bytes more, that is all.
The most common words are at the end, where zstd's references to them are shortest.
"""

WORDS = (
    b"later_word governor unit_limit profile cpu_quota memory_high memory_max oom cpu user memory"
    b" room asked asked over pause over begun ended refused shortened paused python_frames"
    b" mode_reason breaker shed_since shed x86_64 aarch64 -generic -cloud-amd64 -amd64 core bcc"
    b" debug development staging production custom"
    b" rate_change ring_full count_map_full stack_error"
    b" environment container runtime docker containerd podman kernel version .service"
    b" \xabpython_ends \xaaread_fault\xb0unsupported_rule\xa7no_room\xa7no_rows\xa3off"
    b"\xafno_thread_state\xaano_mapping\xa9truncated\xa8complete"
    b"\x83\xa7service\xaaexecutable\xa4unit\xa8build_id\xd9("
    b"\xaaeffective_hz\xa218\xa219\xa298\xa299\xa4mode\xa4core"
    b"\xb4on_demand_collectors\xa3cpu\xb5on_demand_max_rate_hz\xa3199"
    b"\xb3budget_user_percent\xa12\xaebudget_percent\xa11\xa30.5\xa8asked_hz\xa219\xa299"
    b"\xa7machine\xa6x86_64\xa6preset\xabdevelopment\xaaproduction\xa6kernel"
    b"\x8a\xa6kernel\xae6.1.0-18-amd64\xa6preset\xaaproduction\xa7machine\xa6x86_64\xa8asked_hz"
    b"\xa219\xaebudget_percent\xa30.5\xb3budget_user_percent\xa12\xa4mode\xa4core"
    b"\xb5on_demand_max_rate_hz\xa3199\xb4on_demand_collectors\xa3cpu\xaceffective_hz\xa419.0"
    b"\xa50.1.0\xa3cpu"
)
