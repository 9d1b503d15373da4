"""The third document's examples, as they are written there: titles and code, in its order."""

EXAMPLES: dict[str, str] = {
    "state store interface": '''
class StateStore:
    """Interface for state persistence."""
    
    async def load_context(self, user_id: str) -> Optional[CoachContext]:
        """Load context for a user."""
        
    async def save_context(self, context: CoachContext) -> None:
        """Save context for a user."""
''',  # noqa: W293 - the document's own spaces
    "in memory implementation": '''
class InMemoryStateStore(StateStore):
    """In-memory implementation of state persistence."""
''',
    "loading a context": """
# Initialize a state store implementation
state_store = InMemoryStateStore()

# Load a user's context
user_id = "user-123"
context = await state_store.load_context(user_id)

if context:
    # Context exists, use it
    current_state = context.current_state
else:
    # No context found, create a new one
    context = CoachContext(user_id=user_id)
""",
    "saving a context": """
# Update the context
context.current_state = CoachingState.IDENTITY_BRAINSTORMING
context.conversation_history.append(chat_message)

# Save the updated context
await state_store.save_context(context)
""",
}
