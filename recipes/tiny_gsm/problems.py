"""Seeded word problems of 3 to 7 arithmetic steps, and many equally valid ways to write their solution.

A problem is a small directed graph of amounts. Given amounts are stated; every derived amount is stated as a
relation ("Ann has 5 more than Tom."). A solution computes the derived amounts in *any* order that respects the
graph, in any of several wordings, giving some amounts a letter that later steps may use instead of the number, with
optional openers and remarks. So what stands at one position depends on choices made at distant ones, which is what
makes parallel decoding cost something.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES = ("Ann", "Ben", "Cem", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim", "Kim", "Leo", "Mia", "Ned", "Pam", "Sam")
ITEMS = ("apples", "coins", "books", "cards", "shells", "stamps")
LETTERS = ("a", "b", "c", "d", "k", "m", "n", "p", "x", "y")
OPENERS = (" Then", " Next", " Now", " So")
REMARKS = (" That is good.", " Keep going.", " One more done.", " This helps later.")
LARGEST = 99  # every amount, intermediate ones included, lies in 1..LARGEST


@dataclass(frozen=True)
class Amount:
    """One person's amount: given (`op == ""`) or derived from earlier amounts."""

    person: str
    value: int
    op: str = ""  # "", "+", "-", "*" (with `number`) or "&" (sum of two earlier amounts)
    of: tuple[int, ...] = ()  # indices of the amounts it is derived from
    number: int = 0


@dataclass(frozen=True)
class Problem:
    """A question, its graph of amounts (the last one is asked for) and the number of derived amounts."""

    item: str
    amounts: tuple[Amount, ...]

    @property
    def answer(self) -> str:
        """The number asked for, as text."""
        return str(self.amounts[-1].value)

    @property
    def steps(self) -> int:
        """How many amounts have to be computed."""
        return sum(1 for amount in self.amounts if amount.op)

    @property
    def question(self) -> str:
        """The word problem."""
        sentences = [self._fact(amount) for amount in self.amounts]
        return " ".join([*sentences, f"How many {self.item} does {self.amounts[-1].person} have?"])

    def _fact(self, amount: Amount) -> str:
        who = amount.person
        others = [self.amounts[i].person for i in amount.of]
        if not amount.op:
            return f"{who} has {amount.value} {self.item}."
        if amount.op == "+":
            return f"{who} has {amount.number} more than {others[0]}."
        if amount.op == "-":
            return f"{who} has {amount.number} fewer than {others[0]}."
        if amount.op == "*":
            times = {2: "twice", 3: "three times"}[amount.number]
            return f"{who} has {times} as many as {others[0]}."
        return f"{who} has as many as {others[0]} and {others[1]} together."


def sample_problem(rng: random.Random, steps: int) -> Problem:
    """A random problem with exactly `steps` derived amounts, all of them needed for the answer."""
    while True:
        problem = _try_problem(rng, steps)
        if problem is not None:
            return problem


def _try_problem(rng: random.Random, steps: int) -> Problem | None:
    given = rng.choice((1, 2, 2, 3)) if steps > 2 else 1
    people = rng.sample(NAMES, given + steps)
    amounts = [Amount(people[i], rng.randint(2, 40)) for i in range(given)]
    unused = list(range(given))
    left = steps
    while left:
        # every unused amount but one must still be merged by a sum of two
        must_merge = len(unused) - 1 >= left
        person = people[len(amounts)]
        if must_merge or (len(unused) > 1 and rng.random() < 0.35):
            i, j = rng.sample(unused, 2)
            value = amounts[i].value + amounts[j].value
            amounts.append(Amount(person, value, "&", (i, j)))
            unused = [u for u in unused if u not in (i, j)]
        else:
            i = rng.choice(unused)
            value, op, number = _unary(rng, amounts[i].value)
            amounts.append(Amount(person, value, op, (i,), number))
            unused.remove(i)
        if not 1 <= amounts[-1].value <= LARGEST:
            return None
        unused.append(len(amounts) - 1)
        left -= 1
    if len(unused) != 1:
        return None
    # state the facts in another order that still names people before they are referred to
    order = _topological(rng, amounts)
    place = {old: new for new, old in enumerate(order)}
    moved = tuple(
        Amount(a.person, a.value, a.op, tuple(place[i] for i in a.of), a.number) for a in (amounts[i] for i in order)
    )
    return Problem(rng.choice(ITEMS), moved)


def _unary(rng: random.Random, value: int) -> tuple[int, str, int]:
    op = rng.choice("++--**")
    if op == "*":
        number = rng.choice((2, 3))
        return value * number, op, number
    number = rng.randint(2, 30)
    return (value + number if op == "+" else value - number), op, number


def _topological(rng: random.Random, amounts: list[Amount] | tuple[Amount, ...]) -> list[int]:
    """A random order in which every amount comes after those it is derived from."""
    waiting = set(range(len(amounts)))
    order: list[int] = []
    while waiting:
        ready = sorted(i for i in waiting if not any(j in waiting for j in amounts[i].of))
        pick = rng.choice(ready)
        order.append(pick)
        waiting.remove(pick)
    return order


def write_reasoning(problem: Problem, rng: random.Random) -> str:
    """One of the many valid solutions of `problem`, starting with a space, ending with a full stop."""
    letters = list(LETTERS)
    rng.shuffle(letters)
    letter_of: dict[int, str] = {}
    parts: list[str] = []
    for index in _topological(rng, problem.amounts):
        amount = problem.amounts[index]
        if not amount.op:
            continue
        parts.append(_write_step(problem, amount, index, letters, letter_of, rng))
        if rng.random() < 0.12:
            parts.append(rng.choice(REMARKS))
    final = problem.amounts[-1]
    ending = rng.random()
    if ending < 0.3:
        parts.append(" That is what we want.")
    elif ending < 0.6:
        parts.append(f" {final.person} has {final.value} {problem.item}.")
    return "".join(parts)


def _write_step(
    problem: Problem, amount: Amount, index: int, letters: list[str], letter_of: dict[int, str], rng: random.Random
) -> str:
    named = [letter_of.get(i) for i in amount.of]
    numbers = [str(problem.amounts[i].value) for i in amount.of]
    use_letters = any(named) and rng.random() < 0.6
    flip = amount.op in "+*&" and rng.random() < 0.5
    chain = _expression(amount, numbers, flip)
    if use_letters:
        symbols = [name or number for name, number in zip(named, numbers, strict=True)]
        chain = f"{_expression(amount, symbols, flip)} = {chain}"
    who, value = amount.person, amount.value
    style = rng.random()
    opener = rng.choice(OPENERS) if rng.random() < 0.35 else ""
    if style < 0.40:
        return f"{opener} {who} has {chain} = {value}."
    if style < 0.55:
        return f"{opener} {chain} = {value}, for {who}."
    if style < 0.65:
        return f"{opener} {who}: {chain} = {value}."
    letter = letters.pop()
    letter_of[index] = letter
    if style < 0.85:
        return f" Let {letter} be {who}: {letter} = {chain} = {value}."
    return f"{opener} {letter} = {chain} = {value} is {who}."


def _expression(amount: Amount, operands: list[str], flip: bool) -> str:
    pair = operands if amount.op == "&" else [operands[0], str(amount.number)]
    if flip:
        pair = pair[::-1]
    return f"{pair[0]} {'+' if amount.op == '&' else amount.op} {pair[1]}"


def correct_steps(problem: Problem, reasoning: str) -> bool:
    """Whether every equation written in `reasoning` holds, and all derived amounts appear as results.

    An equation is a chain `e1 = e2 = … = v`; letters take the value of the chain they stand in.
    """
    known: dict[str, int] = {}
    results: list[int] = []
    for sentence in reasoning.replace(":", " : ").replace(",", " ,").split("."):
        words = sentence.split()
        if "=" not in words:
            continue
        terms = _terms(words)
        if terms is None:
            return False
        *rest, last = terms
        if len(last) != 1 or not last[0].isdigit():
            return False
        value = int(last[0])
        if len(rest) > 1 and len(rest[0]) == 1:
            known[rest[0][0]] = value
        for term in rest:
            if _value(term, known) != value:
                return False
        results.append(value)
    return all(amount.value in results for amount in problem.amounts if amount.op)


def _terms(words: list[str]) -> list[list[str]] | None:
    symbols = {"+", "-", "*", "="}
    keep = [w for w in words if w in symbols or w.isdigit() or (w in LETTERS)]
    if words[:1] == ["Let"]:
        keep = keep[1:]  # "Let k be Ann: k = …" names the letter once more
    terms: list[list[str]] = [[]]
    for word in keep:
        if word == "=":
            terms.append([])
        else:
            terms[-1].append(word)
    return terms if len(terms) > 1 and all(terms) else None


def _value(term: list[str], known: dict[str, int]) -> int | None:
    def number(word: str) -> int | None:
        return int(word) if word.isdigit() else known.get(word)

    if len(term) == 1:
        return number(term[0])
    if len(term) != 3:
        return None
    left, right = number(term[0]), number(term[2])
    if left is None or right is None:
        return None
    return {"+": left + right, "-": left - right, "*": left * right}.get(term[1])
