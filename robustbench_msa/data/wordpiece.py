"""Token ids of English text by BERT's vocabulary (Devlin et al., NAACL 2019): lower-cased words cut into known pieces.

Datasets that come with sentences instead of ids (MIntRec) need this and a ``vocab.txt``, nothing else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from corruptions import InputError
from robustbench_msa.data.npy import Array

SPECIAL = {"[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
"""Where the uncased English vocabulary has what stressors put in: the ids are part of the protocols."""

_MOST_BYTES, _LONGEST_WORD = 16 * 2**20, 100


class WordPiece:
    """Sentences to ids.

    Args:
        path: a vocabulary, one piece a line; the line's number from 0 is its id.

    Raises:
        InputError: no such file, or not the uncased English vocabulary of BERT (by the places of SPECIAL).
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                lines = file.read(_MOST_BYTES).decode().split("\n")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: expected a vocabulary, one piece a line ({type(error).__name__})") from None
        self.ids = {piece.rstrip("\r"): i for i, piece in enumerate(lines)}
        wrong = [piece for piece, i in SPECIAL.items() if self.ids.get(piece) != i]
        if wrong:
            expected = f"{wrong[0]} as number {SPECIAL[wrong[0]]}"
            raise InputError(f"{path}: expected {expected}, as the vocabulary of bert-base-uncased has it")

    def encode(self, sentences: list[str], steps: int) -> tuple[Array, Array]:
        """Ids ``(N, T)`` int64 with [CLS], [SEP] and padding 0, and their counts ``(N,)``; T at most ``steps``."""
        found = [[101, *self.pieces(sentence)[: steps - 2], 102] for sentence in sentences]
        lengths = np.array([len(ids) for ids in found], np.int64)
        tokens = np.zeros((len(found), int(lengths.max(initial=2))), np.int64)
        for row, ids in zip(tokens, found, strict=True):
            row[: len(ids)] = ids
        return tokens, lengths

    def pieces(self, sentence: str) -> list[int]:
        """The ids of a sentence, without [CLS] and [SEP]."""
        return [i for word in words(sentence) for i in self._cut(word)]

    def _cut(self, word: str) -> list[int]:
        """Always the longest piece that fits; a word that does not come out is [UNK] as a whole."""
        found, start = list[int](), 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1) if len(word) <= _LONGEST_WORD else ()
            end = next((e for e in ends if prefix + word[start:e] in self.ids), None)
            if end is None:
                return [SPECIAL["[UNK]"]]
            found.append(self.ids[prefix + word[start:end]])
            start = end
        return found


def words(sentence: str) -> Iterator[str]:
    """Lower-cased words without accents; each punctuation mark and each Chinese character is a word.

    >>> list(words("Café, isn't it?"))
    ['cafe', ',', 'isn', "'", 't', 'it', '?']
    """
    current = ""
    for character in unicodedata.normalize("NFD", sentence.lower()):
        kind = unicodedata.category(character)
        space = character in " \t\n\r" or kind == "Zs"
        alone = _is_punctuation(character, kind) or _is_chinese(ord(character))
        if (space or alone) and current:
            yield current
            current = ""
        if alone:
            yield character
        elif not space and kind != "Mn" and kind[0] != "C" and character != "\ufffd":
            current += character
    if current:
        yield current


def _is_punctuation(character: str, kind: str) -> bool:
    """ASCII that is neither letter nor digit counts too: ``$`` and ``+`` are symbols to Unicode."""
    return kind[0] == "P" or ("!" <= character <= "~" and not character.isalnum())


def _is_chinese(point: int) -> bool:
    blocks = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0xF900, 0xFAFF))
    return any(low <= point <= high for low, high in (*blocks, (0x2F800, 0x2FA1F)))
