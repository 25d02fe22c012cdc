"""What the old programs were asked: requests as text or bytes come in, floodem's own go out."""

from floodem.legacy.requests.message import Message, make_message
from floodem.legacy.requests.text import parse_text
from floodem.legacy.requests.wire import decode, encode
from floodem.legacy.requests.writing import format_text

__all__ = ["Message", "decode", "encode", "format_text", "make_message", "parse_text"]
