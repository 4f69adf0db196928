"""What a decoder is made of: one frozen config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlm.core.errors import UserError


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are lowered to read further than at first trained; see `rope`.

    Attributes:
      kind: "linear" divides every frequency by `factor`, "llama3" only the slow ones.
      factor: at least 1.
      low_frequency: llama3: below this many turns over `original_length` a frequency is divided.
      high_frequency: llama3: above this many it is kept; in between it is interpolated.
      original_length: llama3: positions of the first training, in tokens.
    """

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise UserError(f"model.rope_scaling.factor={self.factor} must be at least 1")
        if not 0 < self.low_frequency < self.high_frequency:
            raise UserError(
                f"model.rope_scaling: low_frequency={self.low_frequency} must be above 0 and below "
                f"high_frequency={self.high_frequency}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The parts and sizes of a decoder.

    Attributes:
      vocab_size: V; 0 = that of the run's tokenizer.
      new_tokens: the last rows of V, added to a pretrained vocabulary; see `vocabulary`.
      masked: the parameters hold a mask of the tokens that may be written; likewise.
      num_layers: L.
      width: D.
      num_heads: N, query heads.
      num_kv_heads: K, key/value heads, each shared by N/K query heads; None = N.
      head_width: H; None = D/N.
      ffn_width: F; None = 4 D for "gelu", 8/3 D rounded up to a multiple of 32 for "swiglu".
      max_length: positions that may be read, in tokens.
      position: rotary (Su et al. 2021, halves rotated) or a learned table.
      norm: RMSNorm or LayerNorm, before each part and at the end.
      mlp: `down(silu(gate x) * up x)` or `down(gelu(up x))`, GELU by its tanh form.
      bias: of projections and LayerNorms.
      tied: the head is the token embedding.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how they are lowered for longer texts.
      norm_epsilon: added to the variance.
      dropout: share of zeros after the embedding and after each part; rounded to n/256.
      init_stddev: of initial weights; GPT-2's 0.02 is small for a narrow model, which then starts
        slowly: 1/sqrt(D) is a better choice there.
      attention: implementation, see `attention.attention`.
      scan_layers: compile a stretch of layers as one layer and scan over it: a deep model compiles
        as fast as a shallow one, and runs 9 to 17 % slower on a CPU. The same results, up to
        rounding.
      remat: what a layer keeps for its gradient beside its input, the rest being made again: "none"
        = all that it needs, "products" = those with weights, "layers" = nothing. The same results,
        up to rounding; "layers" costs about a third more time. On a CPU only scanned layers save.
    """

    vocab_size: int = 0
    new_tokens: int = 0
    masked: bool = False
    num_layers: int = 4
    width: int = 128
    num_heads: int = 4
    num_kv_heads: int | None = None
    head_width: int | None = None
    ffn_width: int | None = None
    max_length: int = 1024
    position: Literal["rotary", "learned"] = "rotary"
    norm: Literal["rms", "layer"] = "rms"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    bias: bool = False
    tied: bool = True
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = RopeScaling()
    norm_epsilon: float = 1e-5
    dropout: float = 0.0
    init_stddev: float = 0.02
    attention: Literal["auto", "reference", "blocks", "flash", "xla"] = "auto"
    scan_layers: bool = False
    remat: Literal["none", "products", "layers"] = "none"

    def __post_init__(self) -> None:
        sizes = ("num_layers", "width", "num_heads", "kv_heads", "head_size", "ffn_size")
        for name in (*sizes, "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"model: {name}={getattr(self, name)} must be at least 1")
        if self.vocab_size < 0:
            raise UserError(f"model.vocab_size={self.vocab_size} must be at least 0")
        if not 0 <= self.new_tokens <= max(0, self.vocab_size - 1):
            raise UserError(
                f"model.new_tokens={self.new_tokens} must leave old ones in model.vocab_size="
                f"{self.vocab_size}"
            )
        if self.head_width is None and self.width % self.num_heads:
            raise UserError(
                f"model.width={self.width} is no multiple of num_heads={self.num_heads}; "
                "change one or give head_width"
            )
        if self.num_heads % self.kv_heads:
            raise UserError(
                f"model.num_heads={self.num_heads} is no multiple of num_kv_heads={self.kv_heads}"
            )
        if self.position == "rotary" and self.head_size % 2:
            raise UserError(
                f"model: rotary positions need an even head_width, not {self.head_size}"
            )
        if self.dropout and not 1 <= round(256 * self.dropout) <= 255:
            raise UserError(f"model.dropout={self.dropout} must be 0 or from 0.002 to 0.998")

    @property
    def kv_heads(self) -> int:
        """K."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_size(self) -> int:
        """H."""
        return self.width // self.num_heads if self.head_width is None else self.head_width

    @property
    def ffn_size(self) -> int:
        """F."""
        if self.ffn_width is not None:
            return self.ffn_width
        return 4 * self.width if self.mlp == "gelu" else -(-8 * self.width // 96) * 32
