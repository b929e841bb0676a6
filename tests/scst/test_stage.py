"""The stage's own wiring: which scorer rewards, which validates."""

import json
from pathlib import Path

import pytest

from captioning.metrics.cider import DocumentFrequencies
from stages.scst import scorers


def test_the_reward_counts_the_end_and_validation_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {"a": ["many green trees", "some trees"], "b": ["a white roof"], "c": ["two boats"]}
    frequencies = DocumentFrequencies.from_references(tokens.values(), eos=True)
    folder = tmp_path / "data/references"
    folder.mkdir(parents=True)
    for name, content in (("tokens", tokens), ("document_frequencies", frequencies.to_json())):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    reward, plain = scorers(["a", "b"])
    assert reward.references.keys() == plain.references.keys() == {"a", "b"}
    assert reward.score("b", "a white roof", ended=True) > reward.score("b", "a white roof", ended=False)
    assert plain.score("b", "a white roof", ended=True) == plain.score("b", "a white roof", ended=False)
