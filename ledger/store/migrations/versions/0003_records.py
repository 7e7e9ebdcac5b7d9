"""Records of every type: custody, synthetic images, manifests, approvals. The table `seal` becomes `record`."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COPIED = (
    "number, signer, counter, record_id, content, profile, entry, leaves, image_key, study, find, "
    "pixels_token, instance_token, decoder, tiles, log_index"
)


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "record",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("signer", sa.LargeBinary, nullable=False, comment="key id"),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("content", sa.LargeBinary, nullable=False, index=True),
        sa.Column("profile", sa.Text, nullable=False),
        sa.Column("own", sa.Text, comment="the members that only this type has, as in a bundle; null for an AcquisitionRecord"),
        sa.Column("entry", sa.LargeBinary, nullable=False, comment="the log entry"),
        sa.Column("generator", sa.Text, comment="what generated the image, or one that it was made of"),
        sa.Column("leaves", sa.LargeBinary, comment="null, as all below, for a record without an image of its own"),
        sa.Column("image_key", sa.LargeBinary),
        sa.Column("kept", sa.LargeBinary, comment="salts of the items that were kept from a parent"),
        sa.Column("study", sa.BigInteger, sa.ForeignKey("study.id"), index=True),
        sa.Column("find", sa.LargeBinary, comment="the two look-up tokens of a bundle"),
        sa.Column("pixels_token", sa.LargeBinary, index=True, comment="keyed hash of the pixel digest"),
        sa.Column("instance_token", sa.LargeBinary, index=True, comment="keyed hash of SOPInstanceUID"),
        sa.Column("decoder", sa.Text),
        sa.Column("tiles", sa.LargeBinary, comment="sealed tile hashes, as in a bundle"),
        sa.Column("log_index", sa.BigInteger, unique=True, comment="null while queued"),
        sa.UniqueConstraint("signer", "counter", name="record_slot"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "record_link",
        sa.Column("number", number, sa.ForeignKey("record.number"), primary_key=True, autoincrement=False),
        sa.Column(
            "target", sa.LargeBinary, primary_key=True, index=True, comment="record id of a parent, or of what is approved"
        ),
    )
    op.execute(f"INSERT INTO record (type, {_COPIED}) SELECT 'AcquisitionRecord', {_COPIED} FROM seal")  # noqa: S608
    if op.get_context().dialect.name == "postgresql":
        op.execute("SELECT setval(pg_get_serial_sequence('record', 'number'), coalesce(max(number), 0) + 1, false) FROM record")
    op.drop_table("seal")
