"""Appending messages: one at a time in the caller's transaction, and many in one commit.

Everywhere the session's row hands out the next number, in the transaction that stores the message. The row stays
locked until that transaction ends, so numbers are given in the order of commits, without gaps.

``SessionRepository.add_message_to_session``, from the call to the row:

1. ``message.py`` checks what was given and encodes it: a ``PendingMessage``.
2. ``batch.py``: it becomes a ``Batch`` of one, with its tenant, its time and the session's new expiry.
3. ``statements.py`` chooses the engine. ``postgres.py`` sends one statement straight to the driver. ``sqlite.py`` takes
   the write lock, then runs its statements in one visit to the connection's thread. Both return ``Counters``, the
   session's row as it is now; None means that nothing was added, and the repository finds out why.
4. The repository returns ``batch.stored(...)``, a ``SessionMessage``. The caller's transaction commits it.

``SessionRepository.add_messages_to_session`` does the same with a ``Batch`` of many: ``statements.append_many`` returns
a ``Place`` for each message that was added.

``SessionWriter.append`` and ``append_many``, from the call to the commit:

1. ``message.py``, as above.
2. ``writer.py`` puts a ``Request`` (the messages, and a future for the answer) into a queue, and waits for that.
3. The writer's one task takes all requests that wait and hands them to ``delivery.py``, which makes a ``Batch``.
4. ``committer.py`` commits it, over a connection beside the pool: ``direct_postgres.py``, ``direct_sqlite.py``, or a
   transaction of SQLAlchemy where neither can. They run the statements of ``postgres.py`` and ``sqlite.py``.
5. ``delivery.py`` answers each request with what was stored or an error, repeats a commit that failed for a
   passing reason, and halves a batch that is refused until the request at fault is alone.
"""
