"""Damages bytes at random."""

import random
from collections.abc import Sequence

MOST_CHANGES = 20
INTERESTING = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80")
HEAD_BYTES = 256  # where headers are; a third of the changes are there


def mutated(random_: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Returns one of the seeds with some bytes changed, cut, repeated, or taken from another."""
    data = bytearray(random_.choice(seeds))
    for _ in range(random_.randint(1, MOST_CHANGES)):
        if not data:
            break
        end = min(len(data), HEAD_BYTES) if random_.random() < 1 / 3 else len(data)
        place = random_.randrange(end)
        length = min(random_.choice((1, 2, 4, 16, 64, 1024)), len(data) - place)
        match random_.randrange(7):
            case 0 | 1:
                data[place] = random_.randrange(256)
            case 2:
                data[place] ^= 1 << random_.randrange(8)
            case 3:
                data[place : place + length] = random_.choice(INTERESTING)
            case 4:
                del data[place : place + length]
            case 5:
                data[place:place] = data[place : place + length] * random_.choice((1, 2, 100))
            case 6:
                other = random_.choice(seeds)
                data[place : place + length] = other[place : place + length]
    if random_.random() < 0.1:
        del data[random_.randrange(len(data) + 1) :]
    return bytes(data)
