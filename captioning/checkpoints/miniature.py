"""The miniature PaliGemma: the real classes at two million weights, its tokenizer, and what its checkpoints are taught.

It has the parts of the 3B and none of its knowledge: SigLIP without a pooling head, a linear projector, a Gemma
decoder with tied embeddings, `<image>`, the 1,024 `<loc>` and 128 `<seg>` tokens; or PaliGemma 2's parts, a Gemma 2
decoder with its soft caps and sliding windows (arXiv:2412.03555). Its checkpoints are taught as their
namesakes were (arXiv:2407.07726, sections 3.2 and 4): base short web-like captions and text that names everything,
mix a mixture of tasks, cococap COCO's style of caption, rsvqa-lr questions about overhead pictures.
"""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import GemmaTokenizer, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from captioning.data.world import language
from captioning.data.world.captions import lexicon
from captioning.data.world.scenes import Scene

HIDDEN = 128
LAYERS = 4
PATCH = 12  # pixels
SPECIAL_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n"]  # Gemma's first five, and the prompt's end
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]  # byte fallback: no text is out of vocabulary
BASE_VOCABULARY = 2048  # of the vocabulary, before <image>, <loc> and <seg>
DECODERS: dict[str, dict[str, int]] = {  # what one has and the other has not; caps and windows are Gemma 2's own
    "gemma": dict(num_key_value_heads=1),
    "gemma2": dict(num_key_value_heads=2, query_pre_attn_scalar=32),  # as many as head_dim, as in PaliGemma 2's 3B
}

Example = tuple[str, str]  # prompt, suffix


def train_tokenizer(words: Iterable[str]) -> GemmaTokenizer:
    """A Gemma tokenizer whose pieces never cross a space, trained on `words` with and without a leading space."""
    spellings = sorted({space + word for word in words for space in ("", " ")})
    trained = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY, special_tokens=SPECIAL_TOKENS + BYTE_TOKENS, show_progress=False
    )
    trained.train_from_iterator(spellings, trainer)
    return GemmaTokenizer(vocab=trained.get_vocab(), merges=_merges(trained))


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def make_processor(tokenizer: GemmaTokenizer, image_size: int) -> PaliGemmaProcessor:
    """PaliGemma's processor for pictures of `image_size` pixels; it adds `<image>`, `<loc>` and `<seg>`."""
    images = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
    images.image_seq_length = (image_size // PATCH) ** 2
    return PaliGemmaProcessor(images, tokenizer)


def make_config(processor: PaliGemmaProcessor, image_size: int, decoder: str = "gemma") -> PaliGemmaConfig:
    """PaliGemma's configuration, 128 wide and 4 + 4 layers deep; `decoder` is a key of `DECODERS`."""
    tokenizer = processor.tokenizer
    text = dict(
        model_type=decoder,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        head_dim=32,
        intermediate_size=2 * HIDDEN,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **DECODERS[decoder],
    )
    vision = dict(
        model_type="siglip_vision_model",
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=4 * HIDDEN,
        patch_size=PATCH,
        image_size=image_size,
        projection_dim=HIDDEN,
        vision_use_head=False,
    )
    return PaliGemmaConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=HIDDEN,
        image_token_index=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_checkpoint(
    words: Sequence[str], image_size: int, decoder: str = "gemma"
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """A processor that knows `words` and the drawn world's, and a model with fresh weights from torch's global seed.

    `decoder`: `gemma` for PaliGemma, `gemma2` for PaliGemma 2.
    """
    processor = make_processor(train_tokenizer([*words, *lexicon()]), image_size)
    return PaliGemmaForConditionalGeneration(make_config(processor, image_size, decoder)), processor


def load_checkpoint(folder: Path) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """A miniature checkpoint in float32, to be trained on."""
    return PaliGemmaForConditionalGeneration.from_pretrained(folder), PaliGemmaProcessor.from_pretrained(folder)


def base_example(scene: Scene, words: Sequence[str], rng: random.Random) -> Example:
    """A short caption as the web has them; or a text of another grammar, under another prompt, that names everything.

    Embeddings are frozen and tied later: a word that base has not seen can never be learnt. Words of the data that the
    drawn world does not use come as plain lists.
    """
    kind = rng.random()
    if kind < 0.15:
        return "caption en", language.generic_caption(scene, rng)
    if kind < 0.25 and words:
        return "spell en", " , ".join(rng.sample(words, min(8, len(words))))
    if kind < 0.85:
        return "tag en", tag_text(scene)
    return "alt en", language.alt_text(scene, rng)


def tag_text(scene: Scene) -> str:
    """What a picture shows, as a fixed list: class, colour, thing, count, what lies beside."""
    return " , ".join([scene.scene, scene.colour, scene.kind.things, str(scene.count), scene.beside or "nothing"])


def mix_example(scene: Scene, words: Sequence[str], rng: random.Random) -> Example:
    """Short captions, detailed descriptions, questions, counting: a mixture of tasks, as mix was taught."""
    kind = rng.random()
    if kind < 0.2:
        return "caption en", language.generic_caption(scene, rng)
    if kind < 0.6:
        return "describe en", language.detailed_caption(scene, rng)
    if kind < 0.9:
        return _question(rng.choice(language.questions(scene, rng)))
    return _question(language.counting_question(scene, rng))


def cococap_example(scene: Scene, words: Sequence[str], rng: random.Random) -> Example:
    """COCO's style of caption."""
    return "caption en", language.coco_caption(scene, rng)


def rsvqa_example(scene: Scene, words: Sequence[str], rng: random.Random) -> Example:
    """Questions about overhead pictures, as RSVQA-LR asks them (Lobry et al. 2020)."""
    return _question(rng.choice(language.rsvqa_questions(scene, rng)))


def _question(pair: tuple[str, str]) -> Example:
    return f"answer en {pair[0]}", pair[1]


CURRICULA: dict[str, Callable[[Scene, Sequence[str], random.Random], Example]] = {
    "base": base_example,
    "mix": mix_example,
    "cococap": cococap_example,
    "rsvqa-lr": rsvqa_example,
}
