"""Deadlines, priorities, row formats, and the indexes that 100 000 jobs need"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

QUEUED = "status = 'queued'"
ACTIVE = "status IN ('cancelling', 'queued', 'running')"


def upgrade() -> None:
    op.add_column('jobs', sa.Column('format', sa.Integer(), server_default='1', nullable=False))
    op.add_column('jobs', sa.Column('priority', sa.SmallInteger(), server_default='0', nullable=False))
    op.add_column('jobs', sa.Column('max_runtime_seconds', sa.Float(), nullable=True))
    op.add_column('jobs', sa.Column('deadline', sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(op.f('ck_jobs_priority'), 'jobs', 'priority BETWEEN -10 AND 10')
    op.create_table('turns',
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('served_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('owner', name=op.f('pk_turns'))
    )
    op.drop_index('ix_jobs_active', table_name='jobs')
    op.drop_index('ix_jobs_owner_id', table_name='jobs')
    op.create_index('ix_jobs_active', 'jobs', ['status', 'created_at'], postgresql_where=sa.text(ACTIVE))
    op.create_index('ix_jobs_next', 'jobs', ['key_id', sa.literal_column('priority DESC'), 'created_at'], postgresql_where=sa.text(QUEUED))
    op.create_index('ix_jobs_unheard', 'jobs', ['announced_at'], postgresql_where=sa.text(QUEUED))
    op.create_index('ix_jobs_deadline', 'jobs', ['deadline'], postgresql_where=sa.text(f"{QUEUED} AND deadline IS NOT NULL"))
    op.create_index('ix_jobs_kind_id', 'jobs', ['kind', 'id'])
    op.create_index('ix_jobs_owner_kind_id', 'jobs', ['owner', 'kind', 'id'])
    op.create_index('ix_jobs_owner_status_id', 'jobs', ['owner', 'kind', 'status', 'id'])
    op.create_index('ix_jobs_target', 'jobs', [sa.literal_column('lower(target_repo)'), 'id'])
    op.create_index('ix_jobs_active_key', 'jobs', ['key_id'], postgresql_where=sa.text(ACTIVE))


def downgrade() -> None:
    for name in ('active_key', 'target', 'owner_status_id', 'owner_kind_id', 'kind_id', 'deadline', 'unheard', 'next', 'active'):
        op.drop_index(f'ix_jobs_{name}', table_name='jobs')
    op.create_index('ix_jobs_owner_id', 'jobs', ['owner', 'id'])
    op.create_index('ix_jobs_active', 'jobs', ['status', 'announced_at'], postgresql_where=sa.text(ACTIVE))
    op.drop_table('turns')
    op.drop_constraint(op.f('ck_jobs_priority'), 'jobs')
    for column in ('deadline', 'max_runtime_seconds', 'priority', 'format'):
        op.drop_column('jobs', column)
