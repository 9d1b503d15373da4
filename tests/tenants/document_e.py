"""The fourth document's examples of repositories, re-typed as they are written there: titles and code, in its order.

Only package names are changed, the ellipsis that stands for data of the reader's own (``{...}``) is data, and the stale
block of typed operations has the signatures that the rest of the document uses.
"""

EXAMPLES: dict[str, str] = {
    "basic repository usage": """
from agent_service.tenants import (
    RedisUser, RedisStateHandler, RedisTable, RedisSharedState
)

# Initialize repositories with tenant and user context
user = RedisUser(tenant="mimeia", user_id="user123", ttl_default=3600)
handler = RedisStateHandler(tenant="mimeia", user_id="user123", ttl_default=1800)
tables = RedisTable(tenant="mimeia")  # No user_id needed for tables
shared_state = RedisSharedState(tenant="mimeia", user_id="user123")

# User operations - cleaner API without user_id repetition
await user.upsert({"name": "Alice", "score": 100})
user_data = await user.get()
await user.increment_field("score", 10)

# Handler state management - cleaner API
await handler.set("chat_handler", {"step": 1, "data": {"a": []}})
state = await handler.get("chat_handler")
await handler.update_field("chat_handler", "step", 2)

# Merge operations (preserves existing state)
final_state = await handler.upsert("chat_handler", {"step": 3})

# Table operations - unchanged (no user context needed)
await tables.set("users_table", "pk123", {"name": "Bob", "active": True})
row = await tables.get("users_table", "pk123")

# Shared state for tools/agents - unchanged
await shared_state.set("conversation", {"step": 1, "context": "greeting"})
step = await shared_state.get_field("conversation", "step")
""",
    "context-aware shared state": """
from agent_service.tenants.current import _current_ss, RedisSharedState
import asyncio

# In your FastAPI handler or async function
async def handle_user_request(tenant: str, user_id: str, message: str):
    # Create user-specific shared state
    ss = RedisSharedState(tenant=tenant, user_id=user_id)

    # Bind to current context (task-local)
    token = _current_ss.set(ss)
    try:
        # Any code running in this context (including tools in thread pools)
        # will see this specific shared state instance
        await process_user_message(message)
    finally:
        _current_ss.reset(token)  # Always cleanup

# Tools can access the context-bound shared state
from agent_service.tenants.current import _current_ss

class SomeAsyncTool:
    async def execute(self):
        # Gets the shared state bound to current request context
        shared_state = _current_ss.get()
        await shared_state.set_field("tool_state", "last_tool", "SomeAsyncTool")
""",
    "RedisUser": """
user = RedisUser(tenant="your_tenant", user_id="user123")

# CRUD operations - no need to repeat user_id
await user.upsert({"name": "Alice", "active": True})
user_data = await user.get()
await user.update_field("last_login", datetime.now())
await user.delete()

# Atomic operations
await user.increment_field("login_count")
await user.append_to_list("tags", "premium")

# Search (still requires pattern matching across users)
pattern_user = RedisUser(tenant="your_tenant", user_id="*")
found_user = await pattern_user.find_by_field("email", "alice@example.com")

# Check existence
exists = await user.exists()
""",
    "RedisStateHandler": """
handler = RedisStateHandler(tenant="your_tenant", user_id="user123")

# State management - cleaner API without user_id repetition
await handler.set("chat_handler", {"step": 1, "data": {"a": []}})
state = await handler.get("chat_handler")
await handler.update_field("chat_handler", "step", 2)

# Merge operations (preserves existing state)
final_state = await handler.upsert("chat_handler", {"step": 3})
""",
    "RedisTable": """
tables = RedisTable(tenant="your_tenant")

# Table row operations
await tables.set("products", "prod_123", {"name": "Widget", "price": 29.99})
product = await tables.get("products", "prod_123")
await tables.update_field("products", "prod_123", "price", 19.99)

# Cross-table cleanup
await tables.delete_all_by_pkid("user_123")  # Deletes from all tables
""",
    "RedisSharedState": """
shared_state = RedisSharedState(tenant="your_tenant", user_id="user123")

# Store conversation state for tools/agents
await shared_state.set("conversation", {
    "step": 1,
    "context": "user_greeting",
    "collected_data": {"name": "Alice"}
})

# Update specific fields
await shared_state.set_field("conversation", "step", 2)
await shared_state.set_field("conversation", "last_tool", "email_validator")

# Retrieve state data
current_step = await shared_state.get_field("conversation", "step")
full_state = await shared_state.get("conversation")

# Manage multiple states per user
await shared_state.set("form_progress", {"page": 1, "completed_fields": []})
await shared_state.set("tool_cache", {"last_api_call": datetime.now()})

# Cleanup operations
states = await shared_state.list_states()  # ["conversation", "form_progress", "tool_cache"]
await shared_state.delete("form_progress")
await shared_state.clear_all_states()  # Delete all states for this user
""",
    "models": """
from pydantic import BaseModel
from typing import List

class UserProfile(BaseModel):
    name: str
    active: bool
    score: int
    preferences: List[bool]

class UserSettings(BaseModel):
    notifications: bool
    theme: str = "dark"
    auto_save: bool = True
""",
    "typed operations": """
# Store BaseModel directly
profile = UserProfile(name="Alice", active=True, score=100, preferences=[True, False])
await user.update_field("profile", profile)

# Retrieve with automatic typing
models = {
    "profile": UserProfile,
    "settings": UserSettings
}
user_data = await user.get(models=models)
# user_data["profile"] is now a UserProfile instance
# user_data["profile"].active is bool, not string

# Search with typed results
found_user = await user.find_by_field("active", True, models=models)

# Handler state with context models
handler_models = {"context": ConversationContext}
state = await handler.get("chat_handler", models=handler_models)
""",
    "import patterns": """
# Main Redis functionality
from agent_service.infrastructure.redis import RedisClient, ops
from agent_service.tenants import current

# Repository layer
from agent_service.tenants import (
    RedisUser, RedisSharedState, RedisStateHandler, RedisTable, RedisGeneric
)

# Infrastructure utilities
from agent_service.tenants import (
    KeyFactory, dumps, loads, TenantCache
)

# Context-aware shared state
from agent_service.tenants.current import _current_ss, RedisSharedState

# Utilities and logging
from agent_service.core.logging import logger, setup_logging
""",
}
