"""Give captions and references as they are written, before PTB tokens.

A yardstick's captions exist only as tokens. A caption of some image that has these tokens replaces them, so the scores
are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captioning.evaluation.predictions import HUMAN, Prediction, Run
from captioning.evaluation.rows import Result
from captioning.evaluation.scores import human_caption

Captions = Mapping[str, Sequence[str]]  # of each image


@dataclass(frozen=True)
class Texts:
    """A run with the references and its caption of each image, as they are written."""

    run: Run
    references: Captions
    captions: Mapping[str, str]


def restore_texts(
    results: Sequence[Result], predictions: Sequence[Sequence[Prediction]], tokens: Captions, captions: Captions
) -> list[Texts]:
    """Return the texts of `results`, in their order.

    `predictions`: those of the first results; the others are yardsticks. `tokens` and `captions`: those of each image,
    of all splits.
    """
    texts = []
    no_predictions: list[Sequence[Prediction]] = [()] * (len(results) - len(predictions))
    for result, records in zip(results, [*predictions, *no_predictions], strict=True):
        references = {id_: captions[id_] for id_ in result.references}
        if result.run.row == HUMAN:
            texts.append(Texts(result.run, *human_caption(references)))
        elif records:
            written = {record.id: record.caption for record in records}
            texts.append(Texts(result.run, references, {id_: written[id_] for id_ in result.captions}))
        else:
            written = _find_texts(set(result.captions.values()), tokens, captions)
            texts.append(Texts(result.run, references, {id_: written[text] for id_, text in result.captions.items()}))
    return texts


def _find_texts(token_texts: set[str], tokens: Captions, captions: Captions) -> dict[str, str]:
    """Return the first caption that has the tokens, for each of `token_texts`."""
    texts: dict[str, str] = {}
    for id_, tokenised in tokens.items():
        for text, caption in zip(tokenised, captions[id_], strict=True):
            if text in token_texts:
                texts.setdefault(text, caption)
    return texts
