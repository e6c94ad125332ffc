"""The protocol as a document, for programs: which message travels on which subject, and what is in it.

Read off the Structs that the engine itself decodes with, so it cannot say anything else than what is true. For people the same
stands in docs/reference/protocol.md.
"""

from esexec.protocol.asyncapi import asyncapi
from esexec.protocol.catalog import CHANNELS, Channel, Message, questions
from esexec.protocol.files import export, files
from esexec.protocol.schemas import messages, schemas

__all__ = ["CHANNELS", "Channel", "Message", "asyncapi", "export", "files", "messages", "questions", "schemas"]
