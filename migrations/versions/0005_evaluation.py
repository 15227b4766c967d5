"""Evaluations and studies as kinds of jobs, and the cache of answer sheets"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

KINDS = "kind IN ('evaluation', 'merge', 'scores', 'study')"
BEFORE = "kind IN ('merge', 'scores')"


def upgrade() -> None:
    _constrain(KINDS)
    op.create_table('answer_sheets',
    sa.Column('model', sa.String(), nullable=False),
    sa.Column('task', sa.String(), nullable=False),
    sa.Column('settings', sa.String(), nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('model', 'task', 'settings', name=op.f('pk_answer_sheets'))
    )
    op.create_index(op.f('ix_answer_sheets_used_at'), 'answer_sheets', ['used_at'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_answer_sheets_used_at'), table_name='answer_sheets')
    op.drop_table('answer_sheets')
    op.execute("DELETE FROM jobs WHERE kind IN ('evaluation', 'study')")  # the version before knows nothing of them
    _constrain(BEFORE)


def _constrain(kinds: str) -> None:
    op.drop_constraint(op.f('ck_jobs_kind'), 'jobs', type_='check')
    op.create_check_constraint(op.f('ck_jobs_kind'), 'jobs', kinds)
