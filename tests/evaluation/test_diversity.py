"""Self-CIDEr by hand, and against its formula without matrices of n-grams."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from captioning.evaluation.diversity import MAX_IMAGES, SEED, score_diversity, self_cider, similarities
from captioning.metrics.cider import DocumentFrequencies

PORTS = {"i": ["a port"], "j": ["a lake"], "k": ["two planes"], "l": ["green trees"]}


def score(*captions: str) -> float:
    frequencies = DocumentFrequencies.from_references(PORTS.values())
    return self_cider(similarities(captions, frequencies))


def test_equal_captions_score_0_and_unlike_ones_1() -> None:
    assert score("a port", "a port", "a port") == 0
    assert score("port", "lake", "planes", "trees") == pytest.approx(1)
    assert score("a port", "green trees") == pytest.approx(1)


def test_two_equal_captions_and_another() -> None:
    """K is a quarter of [[1, 1, 0], [1, 1, 0], [0, 0, 1]], whose eigenvalues are 2, 1 and 0."""
    ratio = math.sqrt(2) / (math.sqrt(2) + 1)
    assert score("port", "port", "lake") == pytest.approx(-math.log(ratio) / math.log(3))


def test_two_captions_with_a_common_word() -> None:
    """Of the four images, "a" is in two and "port" and "lake" in one each: ln 2, ln 4 and ln 4."""
    cosine = math.log(2) ** 2 / (math.log(2) ** 2 + math.log(4) ** 2)  # the pairs of words differ
    first, second = (2 + cosine) / 4, (2 - cosine) / 4  # eigenvalues of [[2, cosine], [cosine, 2]] / 4
    ratio = math.sqrt(first) / (math.sqrt(first) + math.sqrt(second))
    assert score("a port", "a lake") == pytest.approx(-math.log(ratio) / math.log(2))


@pytest.mark.parametrize("captions", [[""], ["a port"], ["", ""], ["", "", "a port"]])
def test_what_has_no_diversity(captions: list[str]) -> None:
    assert score(*captions) == 0


def test_an_ngram_of_every_image_says_nothing() -> None:
    frequencies = DocumentFrequencies.from_references([["a"], ["a"]])
    assert not similarities(["a", "a"], frequencies).any()


def _words(caption: str, length: int) -> Counter[tuple[str, ...]]:
    words = caption.split()
    return Counter(tuple(words[begin : begin + length]) for begin in range(len(words) - length + 1))


def _similarity(caption: str, other: str, references: dict[str, list[str]]) -> float:
    """Return CIDEr of the paper, without its factor 10: the mean cosine of n-grams of 1 to 4 words."""
    total = 0.0
    for length in range(1, 5):
        images = [{ngram for text in texts for ngram in _words(text, length)} for texts in references.values()]
        vectors = []
        for counts in (_words(caption, length), _words(other, length)):
            weights = {}
            for ngram, count in counts.items():
                holding = sum(ngram in image for image in images)
                weights[ngram] = count * math.log(len(images) / max(1, holding))
            vectors.append(weights)
        norms = [math.sqrt(sum(weight**2 for weight in weights.values())) for weights in vectors]
        if all(norms):
            total += sum(weight * vectors[1].get(ngram, 0.0) for ngram, weight in vectors[0].items()) / math.prod(norms)
    return total / 4


def test_the_formula_with_singular_values_instead_of_eigenvalues() -> None:
    rng = random.Random(1)
    words = ["many", "green", "trees", "are", "near", "a", "large", "building", "with", "white", "roof"]
    references = {f"i{k}": [" ".join(rng.choices(words, k=8)) for _ in range(3)] for k in range(30)}
    captions = {id_: " ".join(rng.choices(words, k=rng.randint(0, 7))) for id_ in references}
    kernel = [[_similarity(one, two, references) for two in captions.values()] for one in captions.values()]
    roots = np.sqrt(np.linalg.svd(np.array(kernel), compute_uv=False))
    expected = -100 * math.log(roots[0] / roots.sum()) / math.log(30)
    assert score_diversity(references, captions) == pytest.approx(expected, abs=1e-3)
    assert 20 < expected < 95


def test_many_images_are_drawn() -> None:
    """Two kinds of captions have the eigenvalues of their numbers among the drawn images, times a common factor."""
    references = {f"i{number}": ["a port", "a lake"][: 1 + number % 2] for number in range(10 * MAX_IMAGES)}
    captions = {id_: "blue boats" if number % 100 == 0 else "red cars" for number, id_ in enumerate(references)}
    drawn = random.Random(SEED).sample(sorted(captions), MAX_IMAGES)
    boats = sum(captions[id_] == "blue boats" for id_ in drawn)
    ratio = math.sqrt(MAX_IMAGES - boats) / (math.sqrt(MAX_IMAGES - boats) + math.sqrt(boats))
    expected = pytest.approx(-100 * math.log(ratio) / math.log(MAX_IMAGES), abs=1e-4)
    assert 0 < boats < 20
    assert score_diversity(references, captions) == expected
    assert score_diversity(references, dict(reversed(captions.items()))) == expected
