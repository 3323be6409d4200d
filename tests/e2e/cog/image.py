"""An image model: a picture of one colour, which the prompt decides."""

import struct, tempfile, zlib

from cog import BaseRunner, Path


def png(width, height, colour):
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Runner(BaseRunner):
    def run(self, prompt: str, width: int = 64, height: int = 64) -> Path:
        file = tempfile.NamedTemporaryFile(suffix=".png", delete=False)
        file.write(png(width, height, [200, 40, 40] if "red" in prompt else [40, 40, 200]))
        file.close()
        return Path(file.name)
