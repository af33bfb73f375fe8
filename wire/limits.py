"""Hard limits of wire version 1; a message beyond one of them is refused, never cut."""

MAX_STACK_FRAMES = 256
MAX_BATCH_ROWS = 1 << 18  # an agent ends an interval at 8,192 stacks
MAX_SERIES = 65_536
MAX_LABELS = 32
MAX_LABEL_BYTES = 512
MAX_NAME_BYTES = 4_096
MAX_STACK_ENDS = 16  # reasons in a batch, of stacks and of their Python parts each
MAX_STACK_END_BYTES = 32  # of one reason's word
MAX_EVENTS = 64  # in a batch
MAX_EVENT_WORD_BYTES = 64  # of an event's kind or reason
MAX_EVENT_TEXT_BYTES = 512  # of its words, before or after
MAX_DEFINITION_FRAMES = 1 << 20  # distinct ones, and in all stacks
MAX_PACKED_STACKS = 4_096  # in definitions of version 2
MAX_PACKED_FRAMES = MAX_PACKED_STACKS * MAX_STACK_FRAMES
PROFILE_STEP_S = 10  # profiles on demand begin, end and last by whole steps of Unix time
MAX_PROFILE_S = 600
MAX_RATE_HZ = 1_000

MAX_BATCH_BYTES = 8 << 20  # compressed, on the wire
MAX_BATCH_DECODED_BYTES = 32 << 20
MAX_DEFINITIONS_BYTES = 16 << 20
MAX_DEFINITIONS_DECODED_BYTES = 48 << 20
MAX_EXTRACT_BYTES = 64 << 20
MAX_EXTRACT_DECODED_BYTES = 128 << 20

# Items of a message (keys, values, lists and maps): what bounds the objects that decoding makes.
MAX_BATCH_ITEMS = 1 << 18
MAX_DEFINITIONS_ITEMS = 1 << 20
MAX_EXTRACT_ITEMS = 64
MAX_TEXT_BYTES = 64 << 10  # of one text, before more is known of it; in memory four times that
MAX_TEXTS_BYTES = 16 << 20  # of all texts of a message
