"""A support assistant that answers with exact quotes from your guide, without a cloud."""

from assistant.desk import Desk

__all__ = ["Desk"]
