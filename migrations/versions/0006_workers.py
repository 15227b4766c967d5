"""Workers, and indexes for figures of what has happened"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None

COUNTED = "type IN ('job.failed', 'job.requeued', 'job.succeeded', 'publish.absent', 'publish.late', 'publish.started')"


def upgrade() -> None:
    op.create_table('workers',
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('host', sa.String(), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('version', sa.String(), nullable=False),
    sa.Column('device', sa.String(), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('seen_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('stopped_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_workers'))
    )
    op.create_index('ix_jobs_ended_at', 'jobs', ['ended_at'], unique=False, postgresql_where=sa.text('ended_at IS NOT NULL'))
    op.create_index('ix_stages_ended_at', 'stages', ['ended_at'], unique=False)
    op.create_index('ix_events_counted', 'events', ['at'], unique=False, postgresql_where=sa.text(COUNTED))


def downgrade() -> None:
    op.drop_index('ix_events_counted', table_name='events', postgresql_where=sa.text(COUNTED))
    op.drop_index('ix_stages_ended_at', table_name='stages')
    op.drop_index('ix_jobs_ended_at', table_name='jobs', postgresql_where=sa.text('ended_at IS NOT NULL'))
    op.drop_table('workers')
