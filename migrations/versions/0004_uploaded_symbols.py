"""Inlined functions of frames, uploaded symbols, and the tokens of those who upload.

Revision: 0004, after 0003. Nullable columns and constant defaults: no table is rewritten. Symbol
files of before are of a form that is read no more: nodes are asked for them again, and their frames
keep the names that they have until then.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NATIVE = 0


def upgrade() -> None:
    op.add_column("frames", sa.Column("callers", postgresql.JSONB(), nullable=True))
    op.add_column("modules", sa.Column("defined_by", sa.Integer(), nullable=True))
    op.create_foreign_key(
        "modules_defined_by_fkey", "modules", "nodes", ["defined_by"], ["id"], ondelete="SET NULL"
    )
    op.add_column("symbol_files", sa.Column("uploaded_by", sa.Text(), nullable=True))
    op.add_column("symbol_files", sa.Column("file_name", sa.Text(), nullable=True))
    op.add_column(
        "symbol_files",
        sa.Column("has_lines", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("symbol_files", sa.Column("named_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "operator_tokens",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="operator_tokens_pkey"),
        sa.UniqueConstraint("token_sha256", name="operator_tokens_token_sha256_key"),
    )
    _forget_symbol_files()


def downgrade() -> None:
    _forget_symbol_files()
    op.drop_table("operator_tokens")
    for column in ("named_at", "has_lines", "file_name", "uploaded_by"):
        op.drop_column("symbol_files", column)
    op.drop_constraint("modules_defined_by_fkey", "modules")
    op.drop_column("modules", "defined_by")
    op.drop_column("frames", "callers")


def _forget_symbol_files() -> None:
    op.execute("DELETE FROM symbol_files WHERE format = 'symcache'")
    op.execute(
        "UPDATE modules SET symbol_state = 'missing', requested_at = NULL "
        f"WHERE kind = {NATIVE} AND symbol_state = 'ready'"
    )
    op.execute(
        "UPDATE frames SET resolved = false FROM modules "
        f"WHERE modules.id = frames.module_id AND modules.kind = {NATIVE} AND frames.resolved"
    )
