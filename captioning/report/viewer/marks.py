"""Mark which words of a caption its image's references share, as CIDEr and BLEU-4 see them: in n-grams of PTB tokens.

Tokens are aligned with the caption from left to right. PTB changes some ("½" becomes "1/2", "€" becomes "$"). A token
that does not follow in the caption stands for the next word there, or for nothing if the next token is that word.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise, zip_longest

LONGEST = 4  # words of an n-gram
UNMARKED = 1  # of spaces and punctuation outside n-grams; of a single word that a reference has
BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}  # PTB's names
WORD = re.compile(r"[^\W_]+")
Tokens = Sequence[str]
Piece = tuple[
    str, int
]  # a part of the caption, and words of the longest n-gram around it in a reference: 0, UNMARKED to 4


def mark_caption(
    caption: str, tokens: Tokens, references: Sequence[Tokens], stop_words: Collection[str] = ()
) -> list[Piece]:
    """Divide `caption` into pieces; joined, they are the caption. `tokens` and `references` are PTB tokens.

    What is between two tokens is marked with them if a reference has these two in a row. A stop word or a sign that no
    reference has is not marked.
    """
    pairs, lengths = _known_ngrams(references, 2), shared_lengths(tokens, references)
    lengths = [length or int(not _is_content(token, stop_words)) for token, length in zip(tokens, lengths, strict=True)]
    levels, spans = [UNMARKED] * len(caption), list(_align(caption, tokens))
    for (start, end), length in zip(spans, lengths, strict=False):
        levels[start:end] = [length] * (end - start)
    for number, ((_, end), (start, _)) in enumerate(pairwise(spans)):
        if (tokens[number], tokens[number + 1]) in pairs:
            levels[end:start] = [min(lengths[number : number + 2])] * (start - end)
    return list(_join_equal(caption, levels))


def shared_lengths(tokens: Tokens, references: Sequence[Tokens]) -> list[int]:
    """Return for each token how many words the longest n-gram around it has that a reference has, too."""
    lengths = [0] * len(tokens)
    for n in range(1, LONGEST + 1):
        known = _known_ngrams(references, n)
        for start, ngram in enumerate(_ngrams(tokens, n)):
            if ngram in known:
                lengths[start : start + n] = [n] * n
    return lengths


def unshared_words(tokens: Tokens, references: Sequence[Tokens], stop_words: Collection[str]) -> list[str]:
    """Return the distinct tokens that no reference has, in their order, without `stop_words` and signs."""
    known = {token for reference in references for token in reference}
    return [token for token in dict.fromkeys(tokens) if token not in known and _is_content(token, stop_words)]


def _is_content(token: str, stop_words: Collection[str]) -> bool:
    return token not in stop_words and token not in BRACKETS and any(map(str.isalnum, token))


def _known_ngrams(references: Sequence[Tokens], n: int) -> set[tuple[str, ...]]:
    return {ngram for reference in references for ngram in _ngrams(reference, n)}


def _ngrams(tokens: Tokens, n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def _align(caption: str, tokens: Tokens) -> Iterator[tuple[int, int]]:
    """Yield start and end of each token in `caption`."""
    position = 0
    for token, following in zip_longest(tokens, tokens[1:]):
        span = _find_next(token, caption, position)
        if span is None and (following is None or _find_next(following, caption, position) is None):
            word = WORD.search(caption, position)
            span = word.span() if word else None
        yield span or (position, position)
        position = span[1] if span else position


def _find_next(token: str, caption: str, position: int) -> tuple[int, int] | None:
    """Return where `token` is if no other word is before it."""
    pattern = rf"[\W_]*?({re.escape(BRACKETS.get(token, token))})"
    match = re.compile(pattern, re.IGNORECASE).match(caption, position)
    return match.span(1) if match else None


def _join_equal(caption: str, levels: Sequence[int]) -> Iterator[Piece]:
    start = 0
    for end in range(1, len(caption) + 1):
        if end == len(caption) or levels[end] != levels[start]:
            yield caption[start:end], levels[start]
            start = end
