"""Write the pages of the API reference, one for each module that the documents import from; mkdocs runs this."""

import mkdocs_gen_files

PAGES = {
    "agent_service": "The names people start with",
    "agent_service.infrastructure.cache": "Cache",
    "agent_service.infrastructure.database": "Database",
    "agent_service.infrastructure.database.repositories": "Sessions",
    "agent_service.infrastructure.database.models": "Tables",
    "agent_service.infrastructure.database.beside": "Beside your own Alembic",
    "agent_service.infrastructure.outbox": "Outbox",
    "agent_service.infrastructure.limits": "Rate limits",
    "agent_service.infrastructure.redis": "Redis",
    "agent_service.infrastructure.redis.ops": "Redis operations",
    "agent_service.context": "Context stores",
    "agent_service.context.adapters": "Context adapters",
    "agent_service.context.sync": "Contexts for synchronous code",
    "agent_service.state": "State stores",
    "agent_service.tenants": "Tenants, triggers, batches",
    "agent_service.runtime": "Runtime and tools",
    "agent_service.integrations.fastapi": "FastAPI",
    "agent_service.integrations.fastapi.sessions": "REST API",
    "agent_service.integrations.fastapi.responses": "HTTP cache",
    "agent_service.integrations.fastapi.limits": "Rate limits of handlers",
    "agent_service.integrations.metrics": "Metrics",
    "agent_service.integrations.fleet": "Fleet",
    "agent_service.integrations.prometheus": "Prometheus",
    "agent_service.integrations.otel": "OpenTelemetry",
    "agent_service.integrations.openai_agents": "OpenAI Agents SDK",
    "agent_service.integrations.adk": "Google ADK",
    "agent_service.integrations.langgraph": "LangGraph",
    "agent_service.integrations.pydantic_ai": "Pydantic AI",
    "agent_service.integrations.importing": "Importers",
    "agent_service.testing": "Testing",
    "agent_service.core.codec": "Codec",
    "agent_service.core.errors": "Errors",
    "agent_service.core.settings": "Settings",
}

nav = []
for module, title in PAGES.items():
    page = f"{module}.md"
    with mkdocs_gen_files.open(f"reference/{page}", "w") as file:
        file.write(f"# {title}\n\n::: {module}\n")
    nav.append(f"- [{title}]({page})\n")
with mkdocs_gen_files.open("reference/SUMMARY.md", "w") as file:
    file.writelines(nav)
