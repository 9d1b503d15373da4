-- What version 0.1.0 made at its revision 0007, with a little in it. Written by pg_dump, not by hand.
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE FUNCTION public.agent_service_announce() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        PERFORM pg_notify('agent_service_sessions', NEW.id::text);
        RETURN NULL;
    END
    $$;
CREATE TABLE public.agent_state (
    key text NOT NULL,
    value text NOT NULL,
    long_key text
);
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.cache_outbox (
    id uuid NOT NULL,
    format smallint NOT NULL,
    body text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    failed_at timestamp with time zone
);
CREATE TABLE public.context_store (
    key text NOT NULL,
    value text NOT NULL,
    long_key text
);
CREATE TABLE public.session_messages (
    session_id uuid NOT NULL,
    seq bigint NOT NULL,
    client_id character varying(255),
    role text NOT NULL,
    content text,
    data json NOT NULL,
    token_count integer,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE public.sessions (
    id uuid NOT NULL,
    tenant_id character varying(255) NOT NULL,
    external_id character varying(255),
    user_id character varying(255) NOT NULL,
    agent_id character varying(255),
    title text,
    status character varying(16) NOT NULL,
    context jsonb NOT NULL,
    metadata json NOT NULL,
    last_seq bigint NOT NULL,
    total_messages bigint NOT NULL,
    total_tokens bigint NOT NULL,
    version integer NOT NULL,
    parent_session_id uuid,
    fork_seq bigint,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    last_activity_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    deleted_at timestamp with time zone,
    watched_until timestamp with time zone,
    CONSTRAINT ck_sessions_status CHECK (((status)::text = ANY ((ARRAY['active'::character varying, 'completed'::character varying, 'failed'::character varying, 'cancelled'::character varying])::text[])))
);
INSERT INTO public.agent_state VALUES ('ada', '{"v": 2}', NULL);
INSERT INTO public.alembic_version VALUES ('0007');
INSERT INTO public.cache_outbox VALUES ('01a22bc3-a758-7399-a41e-6991f4489734', 1, '{"namespace":"users","keys":["user:7"]}', '2026-11-30 09:22:52.376534+00', NULL);
INSERT INTO public.context_store VALUES ('k', '{"v": 1}', NULL);
INSERT INTO public.session_messages VALUES ('01900000-0000-7000-8000-000000000001', 1, 'c1', 'user', 'needle 1', '{"role":"user","content":"needle 1"}', NULL, '2026-11-30 09:22:52.347905+00');
INSERT INTO public.session_messages VALUES ('01900000-0000-7000-8000-000000000001', 2, 'c2', 'user', 'needle 2', '{"role":"user","content":"needle 2"}', NULL, '2026-11-30 09:22:52.358724+00');
INSERT INTO public.session_messages VALUES ('01900000-0000-7000-8000-000000000001', 3, 'c3', 'user', 'needle 3', '{"role":"user","content":"needle 3"}', NULL, '2026-11-30 09:22:52.372994+00');
INSERT INTO public.sessions VALUES ('01900000-0000-7000-8000-000000000001', 'acme', 'one', 'ada', NULL, 'Needle before', 'active', '{"a": 1}', '{"z":1,"a":"\u0000"}', 3, 3, 0, 1, NULL, NULL, '2026-11-30 09:22:52.295491+00', '2026-11-30 09:22:52.372994+00', '2026-11-30 09:22:52.372994+00', '2126-12-01 09:22:52.372994+00', NULL, NULL, NULL);
ALTER TABLE ONLY public.agent_state
    ADD CONSTRAINT agent_state_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.cache_outbox
    ADD CONSTRAINT pk_cache_outbox PRIMARY KEY (id);
ALTER TABLE ONLY public.context_store
    ADD CONSTRAINT pk_context_store PRIMARY KEY (key);
ALTER TABLE ONLY public.session_messages
    ADD CONSTRAINT pk_session_messages PRIMARY KEY (session_id, seq);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT pk_sessions PRIMARY KEY (id);
CREATE INDEX ix_session_messages_content_trigram ON public.session_messages USING gin (content public.gin_trgm_ops);
CREATE INDEX ix_sessions_agent ON public.sessions USING btree (tenant_id, agent_id, last_activity_at, id);
CREATE INDEX ix_sessions_deleted ON public.sessions USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);
CREATE INDEX ix_sessions_expiry ON public.sessions USING btree (expires_at) WHERE ((status)::text = 'active'::text);
CREATE INDEX ix_sessions_forks ON public.sessions USING btree (tenant_id, user_id) WHERE (parent_session_id IS NOT NULL);
CREATE INDEX ix_sessions_parent ON public.sessions USING btree (parent_session_id) WHERE (parent_session_id IS NOT NULL);
CREATE INDEX ix_sessions_title_trigram ON public.sessions USING gin (title public.gin_trgm_ops);
CREATE INDEX ix_sessions_user ON public.sessions USING btree (tenant_id, user_id, last_activity_at, id);
CREATE UNIQUE INDEX uq_session_messages_client_id ON public.session_messages USING btree (session_id, client_id) WHERE (client_id IS NOT NULL);
CREATE UNIQUE INDEX uq_sessions_external_id ON public.sessions USING btree (tenant_id, external_id);
CREATE TRIGGER session_changed AFTER UPDATE OF last_seq, deleted_at ON public.sessions FOR EACH ROW WHEN (((new.watched_until > now()) AND ((new.last_seq <> old.last_seq) OR (new.deleted_at IS DISTINCT FROM old.deleted_at)))) EXECUTE FUNCTION public.agent_service_announce();
ALTER TABLE ONLY public.session_messages
    ADD CONSTRAINT fk_session_messages_session_id FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT fk_sessions_parent_session_id FOREIGN KEY (parent_session_id) REFERENCES public.sessions(id);
CREATE POLICY tenant ON public.session_messages USING ((EXISTS ( SELECT
   FROM public.sessions
  WHERE (sessions.id = session_messages.session_id))));
CREATE POLICY tenant ON public.sessions USING (((( SELECT current_setting('agent_service.tenant'::text, true) AS current_setting) = ('='::text || (tenant_id)::text)) OR (( SELECT current_setting('agent_service.tenant'::text, true) AS current_setting) = '*'::text)));
