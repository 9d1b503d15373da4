"""The fourth document's examples, re-typed as they are written there: titles and code, in its order.

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
from agent_service.runtime import GlobalSymphony
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

# For synchronous tools (like agency-swarm BaseTool)
class SomeSyncTool:
    def run(self):
        shared_state = _current_ss.get()
        loop = GlobalSymphony.get().loop

        # Bridge to async world
        coro = shared_state.set_field("tool_state", "last_tool", "SomeSyncTool")
        future = asyncio.run_coroutine_threadsafe(coro, loop)
        return future.result(timeout=5)
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
    "fastapi integration": """
from agent_service.tenants.current import _current_ss, RedisSharedState
from agent_service.runtime import GlobalSymphony
from agent_service.tenants import RedisUser, RedisStateHandler
from fastapi import FastAPI, Request, Depends
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(app: FastAPI):
    # Initialize GlobalSymphony with Redis
    from agent_service.runtime import GlobalSymphonyConfig

    config = GlobalSymphonyConfig(
        redis_url="redis://localhost:6379/0",
        workers_user=os.cpu_count() * 4,
        workers_tool=32,
        workers_agent=16,
        max_concurrent=128
    )

    await GlobalSymphony.create(config)
    yield

app = FastAPI(lifespan=lifespan)

# Middleware for context binding
@app.middleware("http")
async def bind_shared_state_context(request: Request, call_next):
    tenant_id = extract_tenant_from_request(request)
    user_id = extract_user_from_request(request)

    if tenant_id and user_id:
        # Create and bind shared state to request context
        ss = RedisSharedState(tenant=tenant_id, user_id=user_id)
        token = _current_ss.set(ss)

        try:
            response = await call_next(request)
            return response
        finally:
            _current_ss.reset(token)
    else:
        return await call_next(request)

# FastAPI endpoints can now use context-aware tools
@app.post("/chat")
async def handle_chat(message: str, request: Request):
    # Any tools or agents called from here will automatically
    # have access to the correct shared state via _current_ss.get()

    # Direct access to shared state
    ss = _current_ss.get()
    await ss.set_field("conversation", "last_message", message)

    # Tools in thread pools will also see the same shared state
    result = await process_with_tools(message)
    return {"response": result}
""",
    "agency-swarm tool integration": """
from agency_swarm.tools import BaseTool
from agent_service.tenants.current import _current_ss
from agent_service.runtime import GlobalSymphony
import asyncio

class AsyncBaseTool(BaseTool):
    \"\"\"Enhanced BaseTool with context-aware Redis support\"\"\"

    @property
    def shared_state(self) -> RedisSharedState:
        \"\"\"Get context-bound shared state - safe across threads\"\"\"
        return _current_ss.get()

    def run_async(self, coro) -> Any:
        \"\"\"Execute async operation from sync tool context\"\"\"
        loop = GlobalSymphony.get().loop
        future = asyncio.run_coroutine_threadsafe(coro, loop)
        return future.result(timeout=30)

    # Convenient sync wrappers for common operations
    def get_state(self, state_name: str) -> dict:
        return self.run_async(self.shared_state.get(state_name)) or {}

    def set_state(self, state_name: str, data: dict) -> bool:
        return self.run_async(self.shared_state.set(state_name, data))

    def get_state_field(self, state_name: str, field: str):
        return self.run_async(self.shared_state.get_field(state_name, field))

    def set_state_field(self, state_name: str, field: str, value) -> bool:
        return self.run_async(self.shared_state.set_field(state_name, field, value))

# Example tool using context-aware shared state
class EmailValidatorTool(AsyncBaseTool):
    email: str = Field(..., description="Email to validate")

    def run(self) -> str:
        # No need to manually inject shared state - it's context-aware!
        self.set_state_field("tool_history", "last_tool", "email_validator")

        # Validate email logic here
        is_valid = "@" in self.email

        # Store result in shared state
        self.set_state_field("validation_results", self.email, is_valid)

        return f"Email {self.email} is {'valid' if is_valid else 'invalid'}"
""",
    "after the migration": """
# New approach - direct and context-aware
loop = GlobalSymphony.get().loop
future = asyncio.run_coroutine_threadsafe(some_coroutine(), loop)
result = future.result(timeout=5)
""",
    "shared state after the migration": """
# Context-aware shared state (thread-safe)
token = _current_ss.set(RedisSharedState(tenant="mimeia", user_id="user123"))
try:
    # All tools automatically get the right shared state
    result = await call_tools()
finally:
    _current_ss.reset(token)
""",
    "import patterns": """
# Main Redis functionality
from agent_service.infrastructure.redis import RedisClient, ops
from agent_service.tenants import current

# Repository layer
from agent_service.tenants import (
    RedisUser, RedisSharedState, RedisStateHandler, RedisTable,
    RedisBatch, RedisTrigger, RedisGeneric
)

# Infrastructure utilities
from agent_service.tenants import (
    KeyFactory, dumps, loads, TenantCache
)

# Context-aware shared state
from agent_service.tenants.current import _current_ss, RedisSharedState

# GlobalSymphony integration
from agent_service.runtime import GlobalSymphony, GlobalSymphonyConfig

# Utilities and logging
from agent_service.core.logging import logger, setup_logging
""",
}
