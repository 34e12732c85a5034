"""msabench: how a multimodal sentiment model degrades when its inputs do, and whether it beats another."""
