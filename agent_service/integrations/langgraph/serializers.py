"""Which serializers of LangGraph are taken: those that never pickle."""

from typing import Any

from agent_service.core.errors import ConfigurationError

__all__ = ["refuse_pickle"]


def refuse_pickle(serde: Any) -> None:
    """Refuse a serializer that falls back to pickle, also within others, as where it encrypts.

    :raises ConfigurationError: it does.
    """
    while serde is not None:
        if getattr(serde, "pickle_fallback", False):
            raise ConfigurationError(
                f"serde {type(serde).__name__} falls back to pickle, which runs code that it reads; leave "
                "pickle_fallback out"
            )
        serde = getattr(serde, "serde", None)
