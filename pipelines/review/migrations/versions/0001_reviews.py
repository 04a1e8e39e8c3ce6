"""Queues, items, leases, decisions, captions; comparisons, pairs, votes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
        sa.UniqueConstraint("name", name=op.f("uq_comparisons_name")),
    )
    op.create_table(
        "queues",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("run", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("seen", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queues")),
        sa.UniqueConstraint("run", "name", name=op.f("uq_queues_run_name")),
    )
    op.create_table(
        "items",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("queue_id", SERIAL, nullable=False),
        sa.Column("clip_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rank", sa.Float(precision=53), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("fps", sa.Float(precision=53), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("concept", sa.String(length=200), nullable=True),
        sa.Column("suitability", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["queue_id"], ["queues.id"], name=op.f("fk_items_queue_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
        sa.UniqueConstraint("queue_id", "clip_id", name=op.f("uq_items_queue_id_clip_id")),
    )
    op.create_index(op.f("ix_items_queue_id_state_rank"), "items", ["queue_id", "state", "rank"], unique=False)
    op.create_table(
        "pairs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("comparison_id", SERIAL, nullable=False),
        sa.Column("prompt", sa.Text(), nullable=True),
        sa.Column("a", sa.Text(), nullable=False),
        sa.Column("b", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["comparison_id"], ["comparisons.id"], name=op.f("fk_pairs_comparison_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pairs")),
    )
    op.create_index(op.f("ix_pairs_comparison_id"), "pairs", ["comparison_id"], unique=False)
    op.create_table(
        "captions",
        sa.Column("number", SERIAL, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("item_id", SERIAL, nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("written_by", sa.JSON(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("form", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_captions_item_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_captions")),
        sa.UniqueConstraint("id", name=op.f("uq_captions_id")),
    )
    op.create_index(op.f("ix_captions_item_id"), "captions", ["item_id"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("number", SERIAL, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("queue_id", SERIAL, nullable=False),
        sa.Column("item_id", SERIAL, nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("in_frame", sa.Integer(), nullable=True),
        sa.Column("out_frame", sa.Integer(), nullable=True),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("took_ms", sa.Integer(), nullable=True),
        sa.Column("undoes", sa.String(length=64), nullable=True),
        sa.Column("form", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_decisions_item_id")),
        sa.ForeignKeyConstraint(["queue_id"], ["queues.id"], name=op.f("fk_decisions_queue_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_decisions")),
        sa.UniqueConstraint("id", name=op.f("uq_decisions_id")),
    )
    op.create_index(op.f("ix_decisions_item_id"), "decisions", ["item_id"], unique=False)
    op.create_index(
        op.f("ix_decisions_queue_id_person_number"), "decisions", ["queue_id", "person", "number"], unique=False
    )
    op.create_table(
        "leases",
        sa.Column("item_id", SERIAL, nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Float(precision=53), nullable=False),
        sa.Column("since", sa.Float(precision=53), nullable=False),
        sa.Column("skipped", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_leases_item_id")),
        sa.PrimaryKeyConstraint("item_id", "person", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_until"), "leases", ["until"], unique=False)
    op.create_table(
        "votes",
        sa.Column("number", SERIAL, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("comparison_id", SERIAL, nullable=False),
        sa.Column("pair_id", sa.String(length=64), nullable=False),
        sa.Column("question", sa.String(length=40), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("choice", sa.String(length=8), nullable=False),
        sa.Column("won", sa.String(length=8), nullable=True),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("undoes", sa.String(length=64), nullable=True),
        sa.Column("form", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["comparison_id"], ["comparisons.id"], name=op.f("fk_votes_comparison_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_votes_pair_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_votes")),
        sa.UniqueConstraint("id", name=op.f("uq_votes_id")),
    )
    op.create_index(
        op.f("ix_votes_comparison_id_person_number"), "votes", ["comparison_id", "person", "number"], unique=False
    )
    op.create_index(op.f("ix_votes_pair_id"), "votes", ["pair_id"], unique=False)
    op.create_table(
        "standing",
        sa.Column("item_id", SERIAL, nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("decision", SERIAL, nullable=False),
        sa.ForeignKeyConstraint(["decision"], ["decisions.number"], name=op.f("fk_standing_decision")),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_standing_item_id")),
        sa.PrimaryKeyConstraint("item_id", "person", name=op.f("pk_standing")),
    )


def downgrade() -> None:
    for table in ("votes", "standing", "leases", "decisions", "captions", "pairs", "items", "queues", "comparisons"):
        op.drop_table(table)
