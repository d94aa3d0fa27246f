"""Sentences to tokens: a transformers text model with its tokenizer, our own small one or Bio_ClinicalBERT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emitdiff.errors import EmitDiffError

CLINICAL_BERT = "emilyalsentzer/Bio_ClinicalBERT"
CLINICAL_BERT_REVISION = "d5892b39a4adaed74b92212a44081509db72f87b"  # holds a .bin, which is read as plain tensors
MAX_TOKENS = 32


class TextEncoder(nn.Module):
    """The last hidden states of a text model, one per token, without pooling."""

    def __init__(self, model: nn.Module, tokenizer, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer, self.max_tokens = tokenizer, max_tokens

    @classmethod
    def load(cls, source: str | Path = CLINICAL_BERT, max_tokens: int = MAX_TOKENS) -> TextEncoder:
        """From a folder or a Hub name in transformers layout; frozen, float32. Bio_ClinicalBERT is taken at one commit.

        Raises EmitDiffError where a Hub name is not on this machine and cannot be fetched.
        """
        from transformers import AutoModel, AutoTokenizer

        options: dict[str, Any] = {"local_files_only": Path(source).is_dir()}
        if source == CLINICAL_BERT:
            options["revision"] = CLINICAL_BERT_REVISION
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModel.from_pretrained(source, dtype=torch.float32, **options)
        except OSError as error:
            if options["local_files_only"]:
                raise
            pinned = f" --revision {options['revision']}" if "revision" in options else ""
            raise EmitDiffError(
                f"The text model {source} is not on this machine and the Hub cannot be reached: run "
                f"`hf download {source}{pinned}` where there is a network, or name a folder that holds it."
            ) from error
        return cls(model.eval().requires_grad_(False), tokenizer, max_tokens)

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self.model.config.hidden_size

    def forward(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, L, D) and the attention mask (B, L), 1 on real tokens; L is at most `max_tokens`."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask

    def is_truncated(self, text: str) -> bool:
        """Whether `text` has more tokens than are read."""
        return len(self.tokenizer(text)["input_ids"]) > self.max_tokens

    def save(self, folder: Path) -> None:
        """Model in half precision and tokenizer, in transformers layout."""
        import copy

        copy.deepcopy(self.model).half().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def pretrain_text_encoder(encoder: TextEncoder, draw: Callable[[int], Sequence[str]], count: int, seed: int = 0,
                steps: int = 600, batch: int = 48) -> float:  # fmt: skip
    """Teach every token of a sentence which of `count` things it names, and freeze the encoder; returns the last loss.

    `draw(k)` gives sentences, the i-th one of them naming thing i modulo `count`. Learnt from words alone: beside
    images of few kinds, which say enough by themselves, an encoder would rather go deaf.
    """
    torch.manual_seed(seed)
    classifier = nn.Linear(encoder.dim, count)
    optimizer = torch.optim.AdamW([*encoder.model.parameters(), *classifier.parameters()], lr=1e-3, weight_decay=0.01)
    named, mean_loss = torch.arange(max(batch, count)) % count, 0.0
    encoder.requires_grad_(True).train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - 0.95 * step / steps)
        sentences = list(draw(len(named)))
        chosen = torch.randperm(len(named))[:batch]
        tokens, visible = encoder([sentences[index] for index in chosen])
        predictions = classifier(tokens)[visible.bool()]
        truth = named[chosen][:, None].expand_as(visible)[visible.bool()]
        loss = nn.functional.cross_entropy(predictions, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        mean_loss = loss.item() if step == 0 else 0.95 * mean_loss + 0.05 * loss.item()
    encoder.eval().requires_grad_(False)
    return mean_loss


def build_text_encoder(
    sentences: Iterable[str], dim: int = 128, layers: int = 2, vocabulary: int = 1200
) -> TextEncoder:
    """A small untrained BERT whose lower-case word pieces are learnt from `sentences`; every letter is a piece too,
    so no word is unknown.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = " ".join("abcdefghijklmnopqrstuvwxyz0123456789")
    pieces = BertWordPieceTokenizer(lowercase=True)
    corpus = [*sentences, *[letters, letters.replace(" ", "")] * 2]
    pieces.train_from_iterator(corpus, vocab_size=vocabulary, min_frequency=2, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=MAX_TOKENS)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * dim,
        max_position_embeddings=64,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TextEncoder(BertModel(config), tokenizer)
