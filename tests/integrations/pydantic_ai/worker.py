"""A process that appends turns to a conversation until it is killed, and prints each one once it is saved.

``python -m tests.integrations.pydantic_ai.worker URL CONVERSATION NAME``
"""

import asyncio
import sys

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.pydantic_ai import DatabaseConversationStore
from tests.integrations.pydantic_ai.messages import question

MESSAGES = 40
"""Messages of one turn, so that a crash may come in the middle of its save."""


async def append(url: str, conversation_id: str, name: str) -> None:
    """Append for ever."""
    store, number = DatabaseConversationStore(DatabaseManager(url)), 0
    while True:
        conversation = await store.load(conversation_id, limit=1) or Conversation(conversation_id=conversation_id)
        conversation.messages += [question(f"{name} {number}") for _ in range(MESSAGES)]
        conversation.usage.requests += 1
        try:
            await store.save(conversation)
        except ConversationConflict:
            continue
        sys.stdout.write(f"{name} {number}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    asyncio.run(append(*sys.argv[1:]))
