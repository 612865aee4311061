"""Exact laws: toy distributions with known conditionals, and what a policy makes of them, computed and not sampled.

For example:

    joint = exact.Joint(table)  # (V,) * L, any numbers that are not negative
    law = exact.law(med(0.2) + Temperature(1), joint)
    law.expected_nfe, exact.kl(joint, law), law.kl_bound, exact.tv(joint, law), law.tv_bound
"""

from mdsample.errors import LawTooLarge
from mdsample.exact.audit import RULES, Audit, Point, StudyRule, at_equal_nfe, audit, frontier, hull, settings
from mdsample.exact.chains import HiddenMarkov, MarkovChain
from mdsample.exact.divergence import kl, tv
from mdsample.exact.joint import Joint, Listed
from mdsample.exact.law import Law, law
from mdsample.exact.puzzles import (
    coupled,
    mixture,
    nae_sat,
    nae_triples,
    not_all_equal,
    product,
    reasoning,
    same_word,
    sudoku4,
)
from mdsample.exact.toy import Toy
from mdsample.exact.toys import TOYS

__all__ = [
    "RULES",
    "TOYS",
    "Audit",
    "HiddenMarkov",
    "Joint",
    "Law",
    "LawTooLarge",
    "Listed",
    "MarkovChain",
    "Point",
    "StudyRule",
    "Toy",
    "at_equal_nfe",
    "audit",
    "coupled",
    "frontier",
    "hull",
    "kl",
    "law",
    "mixture",
    "nae_sat",
    "nae_triples",
    "not_all_equal",
    "product",
    "reasoning",
    "same_word",
    "settings",
    "sudoku4",
    "tv",
]
