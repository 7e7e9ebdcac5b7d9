"""The transparency log: staged batches, the head, entries, tiles."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "log_staged",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("old_size", sa.BigInteger, nullable=False),
        sa.Column("new_size", sa.BigInteger, nullable=False),
        sa.Column("checkpoint", sa.Text, nullable=False),
        sa.Column("entries", sa.LargeBinary, nullable=False, comment="an entry bundle of any length"),
        sa.Column("tiles", sa.LargeBinary, nullable=False, comment="the tiles between both sizes, in that order"),
        sa.CheckConstraint("old_size < new_size", name="log_staged_grows"),
        sqlite_autoincrement=True,
    )
    head = op.create_table(
        "log_head",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="log_head_one"), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False, comment="the sequenced size"),
        sa.Column(
            "staged",
            sa.BigInteger,
            sa.ForeignKey("log_staged.id"),
            comment="the batch that is sequenced and not yet published",
        ),
        sa.Column("checkpoint", sa.Text, comment="the published checkpoint"),
    )
    op.create_table(
        "log_entry",
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_tile",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )
    op.execute(head.insert().values(id=1, size=0))
