"""Profiles that operators ask nodes for.

Revision: 0006, after 0005. A new table only: the release before neither writes nor reads it.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATES = "'waiting', 'running', 'done', 'refused', 'expired', 'shortened'"


def _time(name: str, nullable: bool = True) -> "sa.Column[datetime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _sum(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def upgrade() -> None:
    op.create_table(
        "profile_requests",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("collector", sa.Text(), nullable=False),
        sa.Column("rate_hz", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        _time("created_at", nullable=False),
        _time("expires_at", nullable=False),
        _time("sent_at"),
        sa.Column("cancelled_by", sa.Text(), nullable=True),
        sa.Column("run", sa.Uuid(), nullable=True),
        _time("begun_at"),
        _time("ended_at"),
        _time("covered_until"),
        _sum("samples"),
        _sum("lost"),
        _sum("weight_ns"),
        sa.CheckConstraint(f"state IN ({STATES})", name="profile_requests_state_check"),
        sa.PrimaryKeyConstraint("id", name="profile_requests_pkey"),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="profile_requests_node_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("profile_requests_node_idx", "profile_requests", ["node_id", "id"])
    op.create_index("profile_requests_operator_idx", "profile_requests", ["operator", "created_at"])
    op.create_index(
        "profile_requests_active_idx",
        "profile_requests",
        ["node_id"],
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )


def downgrade() -> None:
    op.drop_table("profile_requests")
