-- What version 0.1.0 made at its revision 0007, with a little in it. Written by it, not by hand.
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE sessions (
	id CHAR(32) NOT NULL, 
	tenant_id VARCHAR(255) NOT NULL, 
	external_id VARCHAR(255), 
	user_id VARCHAR(255) NOT NULL, 
	agent_id VARCHAR(255), 
	title TEXT, 
	status VARCHAR(16) NOT NULL, 
	context JSON NOT NULL, 
	metadata JSON NOT NULL, 
	last_seq BIGINT NOT NULL, 
	total_messages BIGINT NOT NULL, 
	total_tokens BIGINT NOT NULL, 
	version INTEGER NOT NULL, 
	parent_session_id CHAR(32), 
	fork_seq BIGINT, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	last_activity_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	completed_at DATETIME, 
	deleted_at DATETIME, watched_until DATETIME, 
	CONSTRAINT pk_sessions PRIMARY KEY (id), 
	CONSTRAINT fk_sessions_parent_session_id FOREIGN KEY(parent_session_id) REFERENCES sessions (id), 
	CONSTRAINT ck_sessions_status CHECK (status IN ('active', 'completed', 'failed', 'cancelled'))
);
CREATE TABLE session_messages (
	session_id CHAR(32) NOT NULL, 
	seq BIGINT NOT NULL, 
	client_id VARCHAR(255), 
	role TEXT NOT NULL, 
	content TEXT, 
	data JSON NOT NULL, 
	token_count INTEGER, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_session_messages PRIMARY KEY (session_id, seq), 
	CONSTRAINT fk_session_messages_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE TABLE session_search_entries (
        id INTEGER PRIMARY KEY, session_id CHAR(32) NOT NULL, seq BIGINT NOT NULL, UNIQUE (session_id, seq)
    );
CREATE VIRTUAL TABLE session_search
    USING fts5(body, content = 'session_search_texts', content_rowid = 'id', tokenize = 'trigram');
CREATE TABLE context_store (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	long_key TEXT, 
	CONSTRAINT pk_context_store PRIMARY KEY ("key")
);
CREATE TABLE cache_outbox (
	id CHAR(32) NOT NULL, 
	format SMALLINT NOT NULL, 
	body TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	failed_at DATETIME, 
	CONSTRAINT pk_cache_outbox PRIMARY KEY (id)
);
CREATE TABLE session_search_pending (
        id INTEGER PRIMARY KEY, session_id CHAR(32) NOT NULL, seq BIGINT NOT NULL
    );
CREATE TABLE agent_state (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	long_key TEXT, 
	PRIMARY KEY ("key")
);
CREATE VIEW session_search_texts AS
    SELECT e.id AS id, s.title AS body FROM session_search_entries e
    JOIN sessions s ON s.id = e.session_id WHERE e.seq = 0
    UNION ALL
    SELECT e.id, m.content FROM session_search_entries e
    JOIN session_messages m ON m.session_id = e.session_id AND m.seq = e.seq WHERE e.seq > 0;
CREATE UNIQUE INDEX uq_sessions_external_id ON sessions (tenant_id, external_id);
CREATE INDEX ix_sessions_user ON sessions (tenant_id, user_id, last_activity_at, id);
CREATE INDEX ix_sessions_agent ON sessions (tenant_id, agent_id, last_activity_at, id);
CREATE INDEX ix_sessions_expiry ON sessions (expires_at) WHERE status = 'active';
CREATE INDEX ix_sessions_parent ON sessions (parent_session_id) WHERE parent_session_id IS NOT NULL;
CREATE UNIQUE INDEX uq_session_messages_client_id ON session_messages (session_id, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX ix_sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX ix_sessions_forks ON sessions (tenant_id, user_id) WHERE parent_session_id IS NOT NULL;
INSERT INTO alembic_version VALUES ('0007');
INSERT INTO sessions VALUES ('01900000000070008000000000000001', 'acme', 'one', 'ada', NULL, 'Needle before', 'active', '{"a":1}', '{"z":1,"a":"\u0000"}', 3, 3, 0, 1, NULL, NULL, '2026-11-30 09:22:47.287907', '2026-11-30 09:22:47.305355', '2026-11-30 09:22:47.305355', '2126-12-01 09:22:47.305355', NULL, NULL, NULL);
INSERT INTO session_messages VALUES ('01900000000070008000000000000001', 1, 'c1', 'user', 'needle 1', '{"role":"user","content":"needle 1"}', NULL, '2026-11-30 09:22:47.298555');
INSERT INTO session_messages VALUES ('01900000000070008000000000000001', 2, 'c2', 'user', 'needle 2', '{"role":"user","content":"needle 2"}', NULL, '2026-11-30 09:22:47.304084');
INSERT INTO session_messages VALUES ('01900000000070008000000000000001', 3, 'c3', 'user', 'needle 3', '{"role":"user","content":"needle 3"}', NULL, '2026-11-30 09:22:47.305355');
INSERT INTO session_search_entries VALUES (1, '01900000000070008000000000000001', 0);
INSERT INTO session_search_entries VALUES (2, '01900000000070008000000000000001', 1);
INSERT INTO session_search_entries VALUES (3, '01900000000070008000000000000001', 2);
INSERT INTO session_search_entries VALUES (4, '01900000000070008000000000000001', 3);
INSERT INTO context_store VALUES ('k', '{"v": 1}', NULL);
INSERT INTO cache_outbox VALUES ('01a22bc3938a7667bb789f5bb8db680e', 1, '{"namespace":"users","keys":["user:7"]}', '2026-11-30 09:22:47.306392', NULL);
INSERT INTO agent_state VALUES ('ada', '{"v": 2}', NULL);
INSERT INTO session_search (rowid, body) VALUES (1, 'Needle before');
INSERT INTO session_search (rowid, body) VALUES (2, 'needle 1');
INSERT INTO session_search (rowid, body) VALUES (3, 'needle 2');
INSERT INTO session_search (rowid, body) VALUES (4, 'needle 3');
CREATE TRIGGER session_search_title_added AFTER INSERT ON sessions WHEN new.title IS NOT NULL BEGIN
        INSERT INTO session_search_entries (session_id, seq) VALUES (new.id, 0);
        INSERT INTO session_search (rowid, body) VALUES (last_insert_rowid(), new.title);
    END;
CREATE TRIGGER session_search_title_changed AFTER UPDATE OF title ON sessions WHEN new.title IS NOT old.title BEGIN
        INSERT INTO session_search (session_search, rowid, body)
            SELECT 'delete', id, old.title FROM session_search_entries WHERE session_id = old.id AND seq = 0;
        DELETE FROM session_search_entries WHERE session_id = old.id AND seq = 0;
        INSERT INTO session_search_entries (session_id, seq) SELECT new.id, 0 WHERE new.title IS NOT NULL;
        INSERT INTO session_search (rowid, body)
            SELECT id, new.title FROM session_search_entries WHERE session_id = new.id AND seq = 0;
    END;
CREATE TRIGGER session_search_title_removed AFTER DELETE ON sessions WHEN old.title IS NOT NULL BEGIN
        INSERT INTO session_search (session_search, rowid, body)
            SELECT 'delete', id, old.title FROM session_search_entries WHERE session_id = old.id AND seq = 0;
        DELETE FROM session_search_entries WHERE session_id = old.id AND seq = 0;
    END;
CREATE TRIGGER session_search_message_removed AFTER DELETE ON session_messages WHEN old.content IS NOT NULL BEGIN
        INSERT INTO session_search (session_search, rowid, body)
            SELECT 'delete', id, old.content FROM session_search_entries
            WHERE session_id = old.session_id AND seq = old.seq;
        DELETE FROM session_search_entries WHERE session_id = old.session_id AND seq = old.seq;
    END;
CREATE TRIGGER session_search_message_added AFTER INSERT ON session_messages WHEN new.content IS NOT NULL BEGIN
        INSERT INTO session_search_pending (session_id, seq) VALUES (new.session_id, new.seq);
    END;
CREATE TRIGGER session_search_pending_taken AFTER DELETE ON session_search_pending BEGIN
        INSERT OR IGNORE INTO session_search_entries (session_id, seq)
            SELECT session_id, seq FROM session_messages
            WHERE session_id = old.session_id AND seq = old.seq AND content IS NOT NULL;
    END;
CREATE TRIGGER session_search_entry_added AFTER INSERT ON session_search_entries WHEN new.seq > 0 BEGIN
        INSERT INTO session_search (rowid, body)
            SELECT new.id, content FROM session_messages WHERE session_id = new.session_id AND seq = new.seq;
    END;
CREATE TRIGGER session_search_pending_bounded AFTER INSERT ON session_search_pending
    WHEN new.id % 100 = 0 AND new.id > 10000 + (SELECT min(id) FROM session_search_pending) BEGIN
        DELETE FROM session_search_pending WHERE id < 200 + (SELECT min(id) FROM session_search_pending);
    END;
