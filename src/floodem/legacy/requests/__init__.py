"""What the old programs were asked: requests as text or bytes come in, floodem's own go out."""

from floodem.legacy.requests.message import Message, make_message
from floodem.legacy.requests.text import format_text, parse_text
from floodem.legacy.requests.wire import decode, encode

__all__ = ["Message", "decode", "encode", "format_text", "make_message", "parse_text"]
