"""A made-up WordPiece vocabulary with BERT's special pieces where BERT has them, and a text to cut up with it.

Words are made of syllables, so that the text has what a tokenizer works on: capitals, punctuation, words that are one piece
and words that are several. Standard library only; the same on every machine.
"""
import json, random

SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
SIGNS = ".,;:!?'\"()-0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(seed):
    """An endless stream of words, short ones more often."""
    rnd = random.Random(seed)
    syllables = [a + b + c for a in "bcdfghjklmnprstvw" for b in "aeiou" for c in ["", "", "n", "r", "s", "l"]]
    while True:
        yield "".join(rnd.choice(syllables) for _ in range(rnd.choices([1, 2, 3, 4], [4, 5, 3, 1])[0]))


def pieces(size):
    """The vocabulary, by id."""
    known = list(SIGNS) + list(LETTERS) + ["##" + letter for letter in LETTERS + "0123456789"]
    found, stream = dict.fromkeys(known), words(1)
    while len(found) < size:
        word = next(stream)
        found[word] = None
        found["##" + word[:3]] = None
    ordinary = iter(found)
    return [SPECIAL.get(i) or (f"[unused{i}]" if i < min(1000, size // 2) else next(ordinary)) for i in range(size)]


def write(directory, size):
    """vocab.txt and what transformers and limbeck want to know of it."""
    (directory / "vocab.txt").write_text("\n".join(pieces(size)) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "DistilBertTokenizer"}))


def text(count):
    """A text of so many words, as news are written."""
    rnd, stream, sentence, out = random.Random(3), words(2), 0, []
    for _ in range(count):
        word = next(stream)
        word = word.capitalize() if sentence == 0 or rnd.random() < 0.1 else word
        sentence = 0 if rnd.random() < 0.07 else sentence + 1
        out.append(word + ("." if sentence == 0 else "," if rnd.random() < 0.06 else ""))
    return " ".join(out)
