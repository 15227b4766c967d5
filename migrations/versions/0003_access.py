"""Quotas, credentials and the audit"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


# Rows may go only in a transaction that says how old they have to be, and only those that are: the retention.
APPEND_ONLY = """
CREATE FUNCTION guard_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  before text := nullif(current_setting('spear.audit_before', true), '');
BEGIN
  IF TG_OP = 'DELETE' AND before IS NOT NULL AND OLD.at < before::timestamptz THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER guard_audit BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION guard_audit();
CREATE TRIGGER guard_audit_whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION guard_audit();
"""

WIPE = """
CREATE FUNCTION wipe_sealed_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM sealed_tokens WHERE job_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER wipe_sealed_token AFTER UPDATE OF status ON jobs FOR EACH ROW
  WHEN (NEW.status IN ('succeeded', 'failed', 'cancelled')) EXECUTE FUNCTION wipe_sealed_token();
"""


def upgrade() -> None:
    op.add_column('api_keys', sa.Column('credential', sa.String(), nullable=True))
    op.add_column('api_keys', sa.Column('requests_per_minute', sa.Integer(), nullable=True))
    op.add_column('api_keys', sa.Column('max_active', sa.Integer(), nullable=True))
    op.add_column('api_keys', sa.Column('max_running', sa.Integer(), nullable=True))
    op.add_column('api_keys', sa.Column('bytes_per_day', sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f('ck_api_keys_limits'), 'api_keys',
        'requests_per_minute > 0 AND max_active >= 0 AND max_running >= 0 AND bytes_per_day >= 0'
    )
    op.create_index('ix_api_keys_owner', 'api_keys', ['owner', 'name'], unique=False)
    op.create_table('audit',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('key_id', sa.String(), nullable=True),
    sa.Column('owner', sa.String(), nullable=True),
    sa.Column('action', sa.String(), nullable=False),
    sa.Column('object', sa.String(), nullable=False),
    sa.Column('status', sa.Integer(), nullable=False),
    sa.Column('code', sa.String(), nullable=True),
    sa.Column('request_id', sa.String(), nullable=True),
    sa.Column('address', sa.String(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit'))
    )
    op.create_index(op.f('ix_audit_at'), 'audit', ['at'], unique=False)
    op.create_index('ix_audit_owner', 'audit', ['owner', 'id'], unique=False)
    op.create_index('ix_audit_key_id', 'audit', ['key_id', 'id'], unique=False)
    op.create_table('usage',
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('owner', 'name', 'day', name=op.f('pk_usage'))
    )
    op.create_table('sealed_tokens',
    sa.Column('job_id', sa.String(), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_sealed_tokens_job_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('job_id', name=op.f('pk_sealed_tokens'))
    )
    op.execute(APPEND_ONLY)
    op.execute(WIPE)


def downgrade() -> None:
    op.execute('DROP TRIGGER wipe_sealed_token ON jobs; DROP FUNCTION wipe_sealed_token()')
    op.drop_table('sealed_tokens')
    op.drop_table('usage')
    op.drop_table('audit')
    op.execute('DROP FUNCTION guard_audit()')
    op.drop_index('ix_api_keys_owner', table_name='api_keys')
    op.drop_constraint(op.f('ck_api_keys_limits'), 'api_keys')
    for column in ('bytes_per_day', 'max_running', 'max_active', 'requests_per_minute', 'credential'):
        op.drop_column('api_keys', column)
