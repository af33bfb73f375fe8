"""Messages that the worker dropped, nodes that were removed, and who sends a delivery just now.

Revision: 0008, after 0007. A new table and nullable columns without default: no table is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dropped_messages",
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column(
            "last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("reason", name="dropped_messages_pkey"),
    )
    for name in ("claimed_until", "unreachable_until"):
        op.add_column("deliveries", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("nodes", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("nodes", sa.Column("removed_by", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("nodes", "removed_by")
    op.drop_column("nodes", "removed_at")
    op.drop_column("deliveries", "unreachable_until")
    op.drop_column("deliveries", "claimed_until")
    op.drop_table("dropped_messages")
