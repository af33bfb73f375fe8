"""How stacks ended, digests of the last batches of a run, and when a node's clock was read.

Revision: 0003, after 0002. Columns with constant defaults: no table is rewritten. An aggregator of
the release before writes and reads beside it: it leaves the defaults.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NO_BYTES = sa.text("''")


def upgrade() -> None:
    op.add_column(
        "node_prof",
        sa.Column("stack_ends", sa.LargeBinary(), server_default=NO_BYTES, nullable=False),
    )
    # zstd already, like `data`.
    op.execute("ALTER TABLE node_prof ALTER COLUMN stack_ends SET STORAGE EXTERNAL")
    op.add_column(
        "runs", sa.Column("digests", sa.LargeBinary(), server_default=NO_BYTES, nullable=False)
    )
    op.add_column("nodes", sa.Column("clock_read_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("nodes", "clock_read_at")
    op.drop_column("runs", "digests")
    op.drop_column("node_prof", "stack_ends")
