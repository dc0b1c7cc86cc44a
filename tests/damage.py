"""Damaged files, for tests that they are refused in one line."""

import random
from collections.abc import Callable
from pathlib import Path

from gcn_cli.errors import InputError


def damaged(data: bytes, draw: random.Random, header: int) -> bytes:
    """Bits flipped (most in the header), parts deleted, doubled or replaced."""
    result = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        end = header if draw.random() < 0.8 else len(result)
        position, length = draw.randrange(min(end, len(result) - 1)), draw.randint(1, 64)
        match draw.randrange(5):
            case 0:
                result[position] ^= 1 << draw.randrange(8)
            case 1:
                del result[position : position + length]
            case 2:
                result[position:position] = result[position : position + length]
            case 3:
                result[position : position + length] = draw.randbytes(length)
            case 4:
                digits = [k for k in range(min(end, len(result))) if chr(result[k]).isdigit()]
                if digits:
                    result[draw.choice(digits)] = ord(draw.choice("0123456789-e.9"))
        if len(result) < 2:
            break
    return bytes(result)


def message_of(read: Callable[[Path], object], path: Path) -> str | None:
    """The one line that refuses a file and begins with its name; None if it is read."""
    try:
        read(path)
    except InputError as error:
        message = str(error)
    else:
        return None
    assert message.startswith(str(path))
    assert "\n" not in message
    return message
