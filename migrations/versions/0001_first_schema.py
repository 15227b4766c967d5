"""The first schema"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


GUARD = """
CREATE FUNCTION guard_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status IN ('succeeded', 'failed', 'cancelled') THEN
    IF (to_jsonb(NEW) - '{version,event_seq,updated_at}'::text[])
       IS DISTINCT FROM (to_jsonb(OLD) - '{version,event_seq,updated_at}'::text[]) THEN
      RAISE EXCEPTION 'job % has ended as %', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
  ELSIF NEW.status <> OLD.status AND NOT (OLD.status, NEW.status) IN (
      ('queued', 'running'), ('queued', 'cancelled'), ('queued', 'failed'),
      ('running', 'queued'), ('running', 'cancelling'), ('running', 'succeeded'), ('running', 'failed'),
      ('running', 'cancelled'), ('cancelling', 'cancelled'), ('cancelling', 'succeeded'), ('cancelling', 'failed')) THEN
    RAISE EXCEPTION 'job % cannot go from % to %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.lease_token < OLD.lease_token OR NEW.event_seq < OLD.event_seq OR NEW.version < OLD.version THEN
    RAISE EXCEPTION 'job %: counters only grow', OLD.id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_job BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION guard_job();
"""


def upgrade() -> None:
    op.create_table('api_keys',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('prefix', sa.String(), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('scopes', postgresql.ARRAY(sa.String()), nullable=False),
    sa.Column('reads', postgresql.ARRAY(sa.String()), nullable=False),
    sa.Column('writes', postgresql.ARRAY(sa.String()), nullable=False),
    sa.Column('unlimited', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
    sa.UniqueConstraint('prefix', name=op.f('uq_api_keys_prefix'))
    )
    op.create_table('spectra',
    sa.Column('digest', sa.String(), nullable=False),
    sa.Column('tensor', sa.String(), nullable=False),
    sa.Column('algorithm', sa.String(), nullable=False),
    sa.Column('precision', sa.String(), nullable=False),
    sa.Column('device_class', sa.String(), nullable=False),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('digest', 'tensor', 'algorithm', 'precision', 'device_class', name=op.f('pk_spectra'))
    )
    op.create_index(op.f('ix_spectra_used_at'), 'spectra', ['used_at'], unique=False)
    op.create_table('jobs',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('kind', sa.String(), server_default='merge', nullable=False),
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('key_id', sa.String(), nullable=False),
    sa.Column('status', sa.String(), server_default='queued', nullable=False),
    sa.Column('stage', sa.String(), nullable=True),
    sa.Column('progress', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('recipe', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('resolved', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('labels', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('target_repo', sa.String(), nullable=True),
    sa.Column('target_branch', sa.String(), nullable=True),
    sa.Column('result', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('error', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('retry_of', sa.String(), nullable=True),
    sa.Column('request_id', sa.String(), nullable=True),
    sa.Column('attempt', sa.Integer(), server_default='0', nullable=False),
    sa.Column('max_attempts', sa.Integer(), nullable=False),
    sa.Column('lease_token', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('lease_owner', sa.String(), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('announced_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('not_before', sa.DateTime(timezone=True), nullable=True),
    sa.Column('publishing', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('publish_deadline', sa.DateTime(timezone=True), nullable=True),
    sa.Column('version', sa.BigInteger(), server_default='1', nullable=False),
    sa.Column('event_seq', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(status IN ('cancelled', 'failed', 'succeeded')) = (ended_at IS NOT NULL)", name=op.f('ck_jobs_ended')),
    sa.CheckConstraint("(status IN ('cancelling', 'running')) = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)", name=op.f('ck_jobs_leased')),
    sa.CheckConstraint("kind IN ('merge', 'scores')", name=op.f('ck_jobs_kind')),
    sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f('ck_jobs_failed_has_error')),
    sa.CheckConstraint("status <> 'succeeded' OR result IS NOT NULL", name=op.f('ck_jobs_succeeded_has_result')),
    sa.CheckConstraint("status IN ('cancelled', 'cancelling', 'failed', 'queued', 'running', 'succeeded')", name=op.f('ck_jobs_status')),
    sa.CheckConstraint('(publishing IS NULL) = (publish_deadline IS NULL)', name=op.f('ck_jobs_publishing_has_deadline')),
    sa.CheckConstraint('(target_repo IS NULL) = (target_branch IS NULL)', name=op.f('ck_jobs_target_whole')),
    sa.CheckConstraint('attempt >= 0 AND lease_token >= 0 AND event_seq >= 0', name=op.f('ck_jobs_counters')),
    sa.ForeignKeyConstraint(['key_id'], ['api_keys.id'], name=op.f('fk_jobs_key_id')),
    sa.ForeignKeyConstraint(['retry_of'], ['jobs.id'], name=op.f('fk_jobs_retry_of')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_jobs'))
    )
    op.create_index('ix_jobs_active', 'jobs', ['status', 'announced_at'], unique=False, postgresql_where=sa.text("status IN ('cancelling', 'queued', 'running')"))
    op.create_index('ix_jobs_labels', 'jobs', ['labels'], unique=False, postgresql_using='gin')
    op.create_index('ix_jobs_owner_id', 'jobs', ['owner', 'id'], unique=False)
    op.create_index('uq_jobs_active_target', 'jobs', [sa.literal_column('lower(target_repo)'), 'target_branch'], unique=True, postgresql_where=sa.text("status IN ('cancelling', 'queued', 'running')"))
    op.create_table('documents',
    sa.Column('job_id', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('body', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_documents_job_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'name', name=op.f('pk_documents'))
    )
    op.create_table('events',
    sa.Column('job_id', sa.String(), nullable=False),
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('type', sa.String(), nullable=False),
    sa.Column('level', sa.String(), server_default='info', nullable=False),
    sa.Column('stage', sa.String(), nullable=True),
    sa.Column('data', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.CheckConstraint("level IN ('info', 'warning', 'error')", name=op.f('ck_events_level')),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_events_job_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', 'seq', name=op.f('pk_events'))
    )
    op.create_table('idempotency_keys',
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('key', sa.String(), nullable=False),
    sa.Column('body_digest', sa.LargeBinary(), nullable=False),
    sa.Column('job_id', sa.String(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_idempotency_keys_job_id'), ondelete='CASCADE', initially='DEFERRED', deferrable=True),
    sa.PrimaryKeyConstraint('owner', 'key', name=op.f('pk_idempotency_keys'))
    )
    op.create_index(op.f('ix_idempotency_keys_created_at'), 'idempotency_keys', ['created_at'], unique=False)
    op.create_table('stages',
    sa.Column('job_id', sa.String(), nullable=False),
    sa.Column('number', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_stages_job_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_stages'))
    )
    op.create_index('ix_stages_job_id', 'stages', ['job_id', 'number'], unique=False)
    op.create_index('uq_stages_open', 'stages', ['job_id'], unique=True, postgresql_where=sa.text('ended_at IS NULL'))
    op.execute(GUARD)


def downgrade() -> None:
    op.execute("DROP TRIGGER guard_job ON jobs; DROP FUNCTION guard_job()")
    op.drop_index('uq_stages_open', table_name='stages', postgresql_where=sa.text('ended_at IS NULL'))
    op.drop_index('ix_stages_job_id', table_name='stages')
    op.drop_table('stages')
    op.drop_index(op.f('ix_idempotency_keys_created_at'), table_name='idempotency_keys')
    op.drop_table('idempotency_keys')
    op.drop_table('events')
    op.drop_table('documents')
    op.drop_index('uq_jobs_active_target', table_name='jobs', postgresql_where=sa.text("status IN ('cancelling', 'queued', 'running')"))
    op.drop_index('ix_jobs_owner_id', table_name='jobs')
    op.drop_index('ix_jobs_labels', table_name='jobs', postgresql_using='gin')
    op.drop_index('ix_jobs_active', table_name='jobs', postgresql_where=sa.text("status IN ('cancelling', 'queued', 'running')"))
    op.drop_table('jobs')
    op.drop_index(op.f('ix_spectra_used_at'), table_name='spectra')
    op.drop_table('spectra')
    op.drop_table('api_keys')
