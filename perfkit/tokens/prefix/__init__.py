"""Prompts whose beginning stays the same: laid out so, watched for what breaks it, priced by each vendor's rules."""

from perfkit.tokens.prefix.blocks import prompt_of
from perfkit.tokens.prefix.detect import Detector, Finding
from perfkit.tokens.prefix.layout import LaidOutRequest, LayoutReport, lay_out
from perfkit.tokens.prefix.rules import CacheRule, rule_of
from perfkit.tokens.prefix.simulate import Bill, Block, Prompt, simulate
from perfkit.tokens.prefix.traffic import Traffic

__all__ = [
    "Bill",
    "Block",
    "CacheRule",
    "Detector",
    "Finding",
    "LaidOutRequest",
    "LayoutReport",
    "Prompt",
    "Traffic",
    "lay_out",
    "prompt_of",
    "rule_of",
    "simulate",
]
