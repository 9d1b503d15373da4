"""The fourth document's examples of context and runtime, re-typed as they are written there, in its order.

Only package names are changed.
"""

EXAMPLES: dict[str, str] = {
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
# Repository layer
from agent_service.tenants import (
    RedisUser, RedisSharedState, RedisStateHandler, RedisTable,
    RedisBatch, RedisTrigger, RedisGeneric
)

# GlobalSymphony integration
from agent_service.runtime import GlobalSymphony, GlobalSymphonyConfig

# Utilities and logging
from agent_service.core.logging import logger, setup_logging
""",
}
