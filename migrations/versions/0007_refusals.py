"""Stacks whose frames were refused, what was refused of each node, and whom symbols were asked of.

Revision: 0007, after 0006. Nullable columns and a new table: no table is rewritten. What was asked
for before is asked for again after five minutes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stacks", sa.Column("refused_by", sa.ARRAY(sa.Integer()), nullable=True))
    op.add_column("modules", sa.Column("asked_of", sa.ARRAY(sa.Integer()), nullable=True))
    op.create_table(
        "node_refusals",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column(
            "last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("node_id", "reason", name="node_refusals_pkey"),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="node_refusals_node_id_fkey", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("node_refusals")
    op.drop_column("modules", "asked_of")
    op.drop_column("stacks", "refused_by")
