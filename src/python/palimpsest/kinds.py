"""The kinds of states, and what their grids have in common."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "hidden",
    "mlp",
    "attn",
    "hidden_severed_mlp",
    "hidden_severed_attn",
    "resid_pre",
    "resid_mid",
    "head",
    "head_all",
    "head_q",
    "head_q_all",
    "head_k",
    "head_k_all",
    "head_v",
    "head_v_all",
    "head_pattern",
    "head_pattern_all",
    "neuron",
]
#: What is restored of a single attention head, at one token.
OF_HEADS = {
    "head": "what a head gives",
    "head_q": "the query of a head",
    "head_k": "the key of a head",
    "head_v": "the value of a head",
    "head_pattern": "the pattern of a head",
}


def is_of_heads(kind: str) -> bool:
    """Whether a cell is of one attention head of a layer, and not of the whole layer."""
    return kind.removesuffix("_all") in OF_HEADS


def is_over_tokens(kind: str) -> bool:
    """Whether a cell restores every token at once, and not one of them."""
    return is_of_heads(kind) and kind.endswith("_all")
