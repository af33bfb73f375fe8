"""What agents did to stay in their budget, and the limits that they ran into.

Revision: 0005, after 0004. A new table only: the release before neither writes nor reads it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agent_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("limit", sa.Double(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="agent_events_pkey"),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="agent_events_node_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("agent_events_node_idx", "agent_events", ["node_id", "at", "id"])
    op.create_index("agent_events_at_idx", "agent_events", ["at"])


def downgrade() -> None:
    op.drop_table("agent_events")
