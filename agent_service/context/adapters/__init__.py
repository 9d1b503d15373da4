"""Adapters: context about the parts of a data structure."""

from agent_service.context.adapters.base import BaseContextAdapter
from agent_service.context.adapters.pandas import PandasContextAdapter

__all__ = ["BaseContextAdapter", "PandasContextAdapter"]
