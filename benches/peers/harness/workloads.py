"""The texts that every runtime is given, as token ids: seeded, so the same on every machine and in every run."""
import random

LENGTHS = [16, 32, 64, 128, 256]
RAGGED = "ragged32"
CLS, SEP = 101, 102


def name(length):
    """How a workload of one text is called: batch 1, so many tokens."""
    return f"b1s{length}"


def texts(vocabulary):
    """Workload -> texts. One text of each length, and 32 texts as news have them, 31 to 73 tokens."""
    rnd = random.Random(7)

    def text(length):
        return [CLS, *(rnd.randrange(min(1000, vocabulary // 2), vocabulary) for _ in range(length - 2)), SEP]

    found = {name(length): [text(length)] for length in LENGTHS}
    lengths = [31, 73, *(min(73, max(31, round(rnd.gauss(52, 12)))) for _ in range(30))]
    rnd.shuffle(lengths)
    return {**found, RAGGED: [text(length) for length in lengths]}


def lengths(rows):
    return [len(row) for row in rows]
