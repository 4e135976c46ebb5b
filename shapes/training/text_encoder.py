"""The tokenizer and the text encoder: a small CLIP text model that learns to hold a scene's attributes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from shapes.caption import Style, caption
from shapes.scene import Scene
from shapes.training.loop import Schedule, train
from shapes.vocabulary import ABSENT, HEAD_WORDS, targets

MAX_TOKENS = 48
WIDTH = 256
BATCH = 96


def build_tokenizer(scenes: list[Scene], folder: Path) -> CLIPTokenizer:
    """A CLIP byte-pair tokenizer whose merges are learnt from captions of `scenes`, written to `folder`."""
    rng = random.Random(0)
    corpus = [caption(scene, style, rng) for scene in scenes for style in Style]
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1400, initial_alphabet=alphabet, end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(corpus, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    symbols = sorted(alphabet)
    merges = [tuple(pair) for pair in learnt["merges"]]
    words = [*symbols, *(f"{s}</w>" for s in symbols), *(a + b for a, b in merges)]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n")
    made = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=MAX_TOKENS
    )
    made.save_pretrained(folder)
    return made


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIPTextModel: 3 layers of width 256, about 2.5 M parameters."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids as the pipeline makes them, int64 [N, MAX_TOKENS], padded and cut."""
    batch = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: Tensor = batch.input_ids
    return ids


class AttributeProbe(nn.Module):
    """Reads every attribute from a caption's token features: each head attends over the tokens with its own query."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = nn.Parameter(torch.randn(len(HEAD_WORDS), WIDTH) * WIDTH**-0.5)
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.attended = nn.ModuleList(nn.Linear(WIDTH, len(words)) for words in HEAD_WORDS.values())
        self.pooled = nn.ModuleList(nn.Linear(WIDTH, len(words)) for words in HEAD_WORDS.values())

    def forward(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per head, logits [N, classes] from the attended tokens and from the end-of-text token."""
        out = self.encoder(ids)
        tokens = out.last_hidden_state
        read, _ = self.attention(self.queries.expand(len(ids), -1, -1), tokens, tokens, need_weights=False)
        pairs = zip(self.attended, self.pooled, strict=True)
        return [(a(read[:, i]), p(out.pooler_output)) for i, (a, p) in enumerate(pairs)]


def draw_captions(scenes: list[Scene], rng: random.Random) -> list[str]:
    """One caption per scene, three in five of them plain."""
    return [caption(scene, rng.choices([*Style], [0.6, 0.4])[0], rng) for scene in scenes]


def train_text_encoder(
    scenes: list[Scene], tokenizer: CLIPTokenizer, iterations: int, folder: Path
) -> tuple[CLIPTextModel, float]:
    """Trains the text model so that a caption's features give away the scene's attributes; returns it and the share
    of captions in the last 20 batches whose attributes are all read right."""
    torch.manual_seed(0)
    probe = AttributeProbe(build_text_encoder(tokenizer))
    wanted = targets(scenes)
    recent: list[float] = []

    def loss(generator: torch.Generator) -> Tensor:
        picks = torch.randint(0, len(scenes), (BATCH,), generator=generator)
        rng = random.Random(int(picks[0]) * 65_537 + int(picks[1]))
        captions = draw_captions([scenes[i] for i in picks.tolist()], rng)
        target = wanted[picks]
        total, right = torch.zeros(()), torch.ones(BATCH, dtype=torch.bool)
        for i, logits in enumerate(probe(tokenize(tokenizer, captions))):
            present = target[:, i] != ABSENT
            if bool(present.any()):
                total = total + sum(cross_entropy(part[present], target[present, i]) for part in logits)
            right &= (logits[0].argmax(1) == target[:, i]) | ~present
        recent.append(right.float().mean().item())
        return total / len(HEAD_WORDS)

    schedule = Schedule(iterations=iterations, learning_rate=1e-3, warmup=100)
    train(probe, loss, schedule, folder)
    last = recent[-20:]
    return probe.encoder.eval(), sum(last) / max(1, len(last))
