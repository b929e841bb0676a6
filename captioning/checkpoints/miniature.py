"""The miniature PaliGemma: the real classes with 1.7 million weights, its tokenizer, and its checkpoints' curricula.

It has the parts of the 3B without its knowledge: SigLIP without a pooling head, a linear projector, a Gemma decoder
with tied embeddings, `<image>`, the 1,024 `<loc>` and 128 `<seg>` tokens; or PaliGemma 2's Gemma 2 decoder with its
soft caps and sliding windows (arXiv:2412.03555). Each checkpoint learns what its namesake learnt (arXiv:2407.07726,
sections 3.2 and 4): base short web-like captions and text that names everything, mix a mixture of tasks, cococap
COCO's style of caption, rsvqa-lr questions about overhead images.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import GemmaTokenizer, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from captioning.data.world import language
from captioning.data.world.captions import lexicon
from captioning.data.world.scenes import Scene
from captioning.params.sections import BaseTraining, MiniatureTraining

HIDDEN = 128
LAYERS = 4
PATCH, PIECES = 12, 2048  # pixels, and tokens of the tokenizer, unless params.yaml says otherwise
SPECIAL_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n"]  # Gemma's first five, and the end of a prompt
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]  # byte fallback: no text is out of vocabulary
FIRST_WORD_SHARE = 0.1  # of a word's occurrences are taken to have no space before them
DECODERS: dict[str, dict[str, int]] = {  # caps and windows come with Gemma 2's class
    "gemma": dict(num_key_value_heads=1),
    "gemma2": dict(num_key_value_heads=2, query_pre_attn_scalar=32),  # equals head_dim, as in PaliGemma 2's 3B
}
NEW_CHECKPOINTS = {"base": "gemma", "paligemma2": "gemma2"}  # by name, with their decoder; others start from base

PromptAndSuffix = tuple[str, str]  # prompt, suffix


def train_tokenizer(words: Mapping[str, int], pieces: int = PIECES) -> GemmaTokenizer:
    """Train a Gemma tokenizer of at most `pieces` tokens, without `<image>`, `<loc>` and `<seg>`.

    `words`: how often each word occurs. Words are spelt with and without a leading space, and no token crosses a space.
    If `pieces` suffice for all words, frequencies do not matter; otherwise the frequent words are single tokens.
    """
    tokenizer = _train_pieces([space + word for word in words for space in ("", " ")], pieces)
    if tokenizer.get_vocab_size() == pieces:
        inner = [f" {word}" for word, count in words.items() for _ in range(count)]
        first = [word for word, count in words.items() for _ in range(1 + int(count * FIRST_WORD_SHARE))]
        tokenizer = _train_pieces(inner + first, pieces)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return GemmaTokenizer(vocab=tokenizer.get_vocab(), merges=[tuple(merge) for merge in merges])


def _train_pieces(spellings: Sequence[str], pieces: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    special = SPECIAL_TOKENS + BYTE_TOKENS
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sorted(spellings), trainer)
    return tokenizer


def make_processor(tokenizer: GemmaTokenizer, image_size: int, patch: int = PATCH) -> PaliGemmaProcessor:
    """Make PaliGemma's processor for images and patches of these pixels. It adds `<image>`, `<loc>` and `<seg>`."""
    images = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
    images.image_seq_length = (image_size // patch) ** 2
    return PaliGemmaProcessor(images, tokenizer)


def make_config(
    processor: PaliGemmaProcessor, image_size: int, decoder: str = "gemma", patch: int = PATCH
) -> PaliGemmaConfig:
    """Make a configuration 128 wide, with four decoder and four tower layers; `decoder` is a key of `DECODERS`."""
    tokenizer = processor.tokenizer
    shared = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    text = {"model_type": decoder, "head_dim": 32, "intermediate_size": 2 * HIDDEN, "vocab_size": len(tokenizer)}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    vision = {"model_type": "siglip_vision_model", "intermediate_size": 4 * HIDDEN, "patch_size": patch}
    images = {"image_size": image_size, "projection_dim": HIDDEN, "vision_use_head": False}
    return PaliGemmaConfig(
        text_config=shared | text | ids | DECODERS[decoder],
        vision_config=shared | vision | images,
        projection_dim=HIDDEN,
        image_token_index=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_checkpoint(
    words: Mapping[str, int], image_size: int, decoder: str = "gemma", patch: int = PATCH, pieces: int = PIECES
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """Make a processor whose words are `words` (with frequencies) and the drawn world's, and a model of fresh weights.

    The weights come from torch's global seed. `decoder`: `gemma` for PaliGemma, `gemma2` for PaliGemma 2.
    """
    processor = make_processor(train_tokenizer(Counter(lexicon()) + Counter(words), pieces), image_size, patch)
    return PaliGemmaForConditionalGeneration(make_config(processor, image_size, decoder, patch)), processor


def start_checkpoint(
    name: str, words: Mapping[str, int], image_size: int, settings: MiniatureTraining, base: Path
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """Make the checkpoint `name` of fresh weights, or load the folder `base` if it starts from there."""
    if not isinstance(settings, BaseTraining):
        return load_checkpoint(base)
    return make_checkpoint(words, image_size, NEW_CHECKPOINTS[name], settings.patch, settings.pieces)


def load_checkpoint(folder: Path) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """Load a miniature checkpoint in float32 for further training."""
    return PaliGemmaForConditionalGeneration.from_pretrained(folder), PaliGemmaProcessor.from_pretrained(folder)


def base_example(scene: Scene, words: Sequence[str], rng: random.Random) -> PromptAndSuffix:
    """Return a short web-like caption, or under another prompt a text in another grammar that names everything.

    Embeddings are frozen and tied later, so a word that base has not seen can never be learnt. Words of the data that
    the drawn world does not use come as plain lists.
    """
    share = rng.random()
    if share < 0.15:
        return "caption en", language.generic_caption(scene, rng)
    if share < 0.25 and words:
        return "spell en", " , ".join(rng.sample(words, min(8, len(words))))
    if share < 0.85:
        return "tag en", tag_text(scene)
    return "alt en", language.alt_text(scene, rng)


def tag_text(scene: Scene) -> str:
    """Return what an image shows as a fixed list: class, colour, thing, count, what lies beside it."""
    return " , ".join([scene.scene, scene.colour, scene.kind.things, str(scene.count), scene.beside or "nothing"])


def mix_example(scene: Scene, words: Sequence[str], rng: random.Random) -> PromptAndSuffix:
    """Return an example of one of mix's tasks: short captions, detailed descriptions, questions, counting."""
    share = rng.random()
    if share < 0.2:
        return "caption en", language.generic_caption(scene, rng)
    if share < 0.6:
        return "describe en", language.detailed_caption(scene, rng)
    if share < 0.9:
        return _question(rng.choice(language.questions(scene, rng)))
    return _question(language.counting_question(scene, rng))


def cococap_example(scene: Scene, words: Sequence[str], rng: random.Random) -> PromptAndSuffix:
    """Return a caption in COCO's style."""
    return "caption en", language.coco_caption(scene, rng)


def rsvqa_example(scene: Scene, words: Sequence[str], rng: random.Random) -> PromptAndSuffix:
    """Return a question about an overhead image, as RSVQA-LR asks it (Lobry et al. 2020)."""
    return _question(rng.choice(language.rsvqa_questions(scene, rng)))


def _question(pair: tuple[str, str]) -> PromptAndSuffix:
    return f"answer en {pair[0]}", pair[1]


CURRICULA: dict[str, Callable[[Scene, Sequence[str], random.Random], PromptAndSuffix]] = {
    "base": base_example,
    "mix": mix_example,
    "cococap": cococap_example,
    "rsvqa-lr": rsvqa_example,
}
