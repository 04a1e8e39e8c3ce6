"""What Alembic runs: the migrations on the connection that `database.migrate` hands over."""

from alembic import context

from rushes.pipelines.review.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, transactional_ddl=False,
    render_as_batch=True,
)  # fmt: skip
context.run_migrations()
