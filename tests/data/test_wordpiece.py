"""Token ids by BERT's vocabulary, compared with the tokenizer that everybody uses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.data.wordpiece import WordPiece, words

PIECES = ["hello", "world", "un", "##aff", "##able", ",", ".", "'", "!", "?", "$", "don", "t", "cafe", "5", "2", "##1"]
PIECES += ["中", "a", "##b", "i"]


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """As many lines as put the special pieces where bert-base-uncased has them."""
    lines = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path / "vocab.txt"


def pieces_of(ids: list[int]) -> list[str]:
    return [PIECES[i - 104] if i >= 104 else "[UNK]" for i in ids]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Hello, world!", "hello , world !"),
        ("unaffable", "un ##aff ##able"),
        ("unaffablex hello", "[UNK] hello"),
        ("don't", "don ' t"),
        ("CAFÉ\u0301\t5$", "cafe 5 $"),
        ("hello中world", "hello 中 world"),
        ("he\u0000l\u200dlo", "hello"),  # control characters are dropped inside words
        ("x" * 101, "[UNK]"),
        ("ab\u00a0abb 21", "a ##b a ##b ##b 2 ##1"),
        ("", ""),
    ],
)
def test_sentences(sentence: str, expected: str, vocabulary: Path) -> None:
    assert pieces_of(WordPiece(vocabulary).pieces(sentence)) == expected.split()


def test_ids_are_padded_and_cut(vocabulary: Path) -> None:
    tokens, lengths = WordPiece(vocabulary).encode(["hello", "hello world , hello world", ""], 5)
    hello, world, comma = 104, 105, 109
    expected = [[101, hello, 102, 0, 0], [101, hello, world, comma, 102], [101, 102, 0, 0, 0]]
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_array_equal(lengths, [3, 5, 2])


SENTENCES = [
    "Hello, world! I don't care... it's $5.21 (unaffable) -- CAFÉ?",
    "Señor Müller's naïve co-operation: 中文 and ΑΒΓ, 😀 ok",
    "a\tb\nc  d\u2019s \u201cquoted\u201d ab_ab #hash @you 100% x=y^2 ~tilde `tick`",
    "hello\ufffdworld soft\u00adhyphen",
]


def test_as_the_reference_tokenizer(vocabulary: Path) -> None:
    transformers = pytest.importorskip("transformers", reason='needs the extra "bert" (transformers)')
    reference = transformers.BertTokenizer(str(vocabulary), do_lower_case=True)
    ours = WordPiece(vocabulary)
    for sentence in SENTENCES:
        np.testing.assert_array_equal([101, *ours.pieces(sentence), 102], reference(sentence)["input_ids"])


def test_words_as_the_reference_splits_them() -> None:
    """Ids could agree where both are [UNK]: here the words themselves are compared."""
    tokenizers = pytest.importorskip("tokenizers", reason='needs the extra "bert" (transformers)')
    normalise = tokenizers.normalizers.BertNormalizer(lowercase=True)
    split = tokenizers.pre_tokenizers.BertPreTokenizer()
    for sentence in SENTENCES:
        expected = [word for word, _ in split.pre_tokenize_str(normalise.normalize_str(sentence))]
        assert list(words(sentence)) == expected


def test_other_vocabularies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    with pytest.raises(InputError, match=r"expected \[UNK\] as number 100, as the vocabulary of bert-base-uncased"):
        WordPiece(tmp_path / "v.txt")
    (tmp_path / "v.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "v.txt", tmp_path / "none.txt", Path(os.sep)):
        with pytest.raises(InputError, match="expected a vocabulary, one piece a line"):
            WordPiece(path)
