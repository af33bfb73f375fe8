"""First schema: nodes, dictionary of stacks, profile blobs, symbols, alerts.

Revision: 0001, the first. Time partitions are made later, by `aggregator.profiles.partitions`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NODE_TIERS_S = (10, 60)


def upgrade() -> None:
    op.create_table(
        "dirty_bucket",
        sa.Column("tier_s", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("node_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("tier_s", "bucket", "node_id", name="dirty_bucket_pkey"),
    )
    op.create_table(
        "node_overhead",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cpu_percent", sa.REAL(), nullable=False),
        sa.Column("user_percent_of_core", sa.REAL(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("map_bytes", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "at", name="node_overhead_pkey"),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("node_overhead_at_idx", "node_overhead", ["at"])
    op.create_table(
        "node_prof",
        sa.Column("tier_s", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("part", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("covered_ms", sa.BigInteger(), nullable=False),
        sa.Column("weight_ns", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tier_s", "bucket", "node_id", "part", name="node_prof_pkey"),
        postgresql_partition_by="LIST (tier_s)",
    )
    op.create_index("node_prof_node_idx", "node_prof", ["node_id", "bucket"])
    op.create_table(
        "nodes",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("agent_version", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "facts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("rate_millihertz", sa.Integer(), nullable=True),
        sa.Column("online_cpus", sa.Integer(), nullable=True),
        sa.Column("clock_offset_ms", sa.BigInteger(), nullable=True),
        sa.Column("lost_batches", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lost_samples", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="nodes_pkey"),
        sa.UniqueConstraint("name", name="nodes_name_key"),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="series_pkey"),
        sa.UniqueConstraint("key_hash", name="series_key_hash_key"),
    )
    op.create_index("series_service_idx", "series", ["service", "version"])
    op.create_table(
        "stacks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("hash", sa.Uuid(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=True),
        sa.Column("defined_by", sa.Integer(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="stacks_pkey"),
        sa.UniqueConstraint("hash", name="stacks_hash_key"),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="firing", nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.CheckConstraint("state IN ('firing', 'resolved')", name=op.f("alerts_state_check")),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="alerts_node_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="alerts_pkey"),
    )
    op.create_index(
        "alerts_firing_key",
        "alerts",
        ["rule", "node_id"],
        unique=True,
        postgresql_where=sa.text("state = 'firing'"),
    )
    op.create_index("alerts_node_idx", "alerts", ["node_id", "started_at"])
    op.create_table(
        "modules",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("build_id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash64", sa.BigInteger(), nullable=False),
        sa.Column("symbol_state", sa.Text(), server_default="missing", nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requested_node_id", sa.Integer(), nullable=True),
        sa.Column("refused_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "symbol_state IN ('missing', 'requested', 'ready', 'refused')",
            name=op.f("modules_symbol_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["requested_node_id"],
            ["nodes.id"],
            name="modules_requested_node_id_fkey",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name="modules_pkey"),
        sa.UniqueConstraint("kind", "build_id", name="modules_kind_build_id_key"),
    )
    op.create_index(
        "modules_pending_idx",
        "modules",
        ["id"],
        postgresql_where=sa.text("symbol_state IN ('missing', 'requested')"),
    )
    op.create_table(
        "node_tokens",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="node_tokens_node_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="node_tokens_pkey"),
        sa.UniqueConstraint("token_sha256", name="node_tokens_token_sha256_key"),
    )
    op.create_index("node_tokens_node_id_idx", "node_tokens", ["node_id"])
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("high_water", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("digest", sa.LargeBinary(), server_default=sa.text("''"), nullable=False),
        sa.Column("lost_batches", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_batch_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="runs_node_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="runs_pkey"),
        sa.UniqueConstraint("node_id", "run", name="runs_node_id_run_key"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("alert_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=True,
        ),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("event IN ('firing', 'resolved')", name=op.f("deliveries_event_check")),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alerts.id"], name="deliveries_alert_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="deliveries_pkey"),
        sa.UniqueConstraint("alert_id", "event", "url", name="deliveries_alert_id_event_url_key"),
        sa.UniqueConstraint("webhook_id", name="deliveries_webhook_id_key"),
    )
    op.create_index(
        "deliveries_pending_idx",
        "deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "frames",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("module_id", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("function", sa.Text(), nullable=True),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("line", sa.BigInteger(), nullable=True),
        sa.Column("resolved", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(["module_id"], ["modules.id"], name="frames_module_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="frames_pkey"),
        sa.UniqueConstraint("module_id", "offset", name="frames_module_id_offset_key"),
    )
    op.create_index(
        "frames_unresolved_idx", "frames", ["module_id"], postgresql_where=sa.text("NOT resolved")
    )
    op.create_table(
        "module_nodes",
        sa.Column("module_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["module_id"], ["modules.id"], name="module_nodes_module_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="module_nodes_node_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("module_id", "node_id", name="module_nodes_pkey"),
    )
    op.create_index("module_nodes_node_id_idx", "module_nodes", ["node_id"])
    op.create_table(
        "symbol_files",
        sa.Column("module_id", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("source_node_id", sa.Integer(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "format IN ('extract', 'symcache', 'table')", name=op.f("symbol_files_format_check")
        ),
        sa.ForeignKeyConstraint(
            ["module_id"], ["modules.id"], name="symbol_files_module_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_node_id"],
            ["nodes.id"],
            name="symbol_files_source_node_id_fkey",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("module_id", name="symbol_files_pkey"),
    )
    # The blobs are zstd already: compressing them again costs CPU and gains nothing.
    op.execute("ALTER TABLE node_prof ALTER COLUMN data SET STORAGE EXTERNAL")
    for tier_s in NODE_TIERS_S:
        op.execute(
            f"CREATE TABLE node_prof_{tier_s} PARTITION OF node_prof "
            f"FOR VALUES IN ({tier_s}) PARTITION BY RANGE (bucket)"
        )


def downgrade() -> None:
    for table in (
        "symbol_files",
        "module_nodes",
        "frames",
        "deliveries",
        "runs",
        "node_tokens",
        "modules",
        "alerts",
        "stacks",
        "series",
        "nodes",
        "node_prof",
        "node_overhead",
        "dirty_bucket",
    ):
        op.drop_table(table)
