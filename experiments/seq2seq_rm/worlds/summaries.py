"""A world of summaries with a small grammar: say what a document tells of its topic, and nothing else.

A document is a list of clauses, each active, ``subject verb object .``, or passive, ``object participle by subject .``.
The verb agrees in number with its subject. The summary of the facts about the topic is one active sentence,

    S -> topic VP (and VP)*      VP -> verb object,

so passive clauses have to be turned around and other subjects' clauses to be left out. A prompt is [BOS, topic,
clauses, SEP], padded on the left. NumPy, any number of rows at once.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.rewards.facts_world import BOS, PAD, SEP, Pairs, ended, lengths, preferred

Rows = Int[np.ndarray, "n _"]

AND, BY, STOP = 5, 6, 7
SUBJECTS = range(8, 20)  # the first half singular, the second plural
OBJECTS = range(20, 32)
VERBS = range(32, 56)  # eight verbs; singular, plural and participle of each
ADVERBS = range(56, 60)
_CLAUSES, _FORMS = 5, 3
_NUMBER_OF_VERBS = len(VERBS) // _FORMS


@dataclass(frozen=True)
class Summaries:
    """The world. Clauses about the topic: one to three of five, at random places.

    Attributes:
        omit: probability that the annotated policy leaves out a fact.
        invent: that it says another object.
        disagree: that it takes the verb's wrong number.
        wander: that it adds a fact about somebody else.
        adverb: that an adverb stands before a verb.
        response_length: N.
    """

    omit: float = 0.35
    invent: float = 0.1
    disagree: float = 0.1
    wander: float = 0.15
    adverb: float = 0.1
    response_length: int = 24

    @property
    def vocabulary(self) -> int:
        """V."""
        return ADVERBS[-1] + 1

    @property
    def prompt_length(self) -> int:
        """P, of the longest document."""
        return 5 * _CLAUSES + 3

    def prompts(self, random: np.random.Generator, count: int) -> Rows:
        """Random prompts [n, P], padded on the left."""
        topic = random.integers(len(SUBJECTS), size=(count, 1)) + SUBJECTS[0]
        other = (topic - SUBJECTS[0] + random.integers(1, len(SUBJECTS), size=(count, _CLAUSES))) % len(SUBJECTS)
        about = random.random((count, _CLAUSES)).argsort(1) < random.integers(1, 4, size=(count, 1))
        subject = np.where(about, topic, other + SUBJECTS[0])
        verb = random.random((count, _NUMBER_OF_VERBS)).argsort(1)[:, :_CLAUSES]
        thing = random.random((count, len(OBJECTS))).argsort(1)[:, :_CLAUSES] + OBJECTS[0]
        passive = random.random((count, _CLAUSES)) < 0.4
        active = np.stack([subject, _form(verb, _is_plural(subject)), thing, thing * 0 + STOP, thing * 0 + PAD], axis=2)
        turned = np.stack([thing, _form(verb, 2), thing * 0 + BY, subject, thing * 0 + STOP], axis=2)
        clauses = np.where(passive[:, :, None], turned, active).reshape(count, -1)
        edge = np.ones((count, 1), int)
        row = np.concatenate([BOS * edge, topic, clauses, SEP * edge], axis=1)
        places = np.argsort(row != PAD, axis=1, kind="stable")
        return np.take_along_axis(row, places, axis=1).astype(np.int32)

    def responses(self, random: np.random.Generator, prompts: Rows) -> Rows:
        """What the annotated policy answers, [n, N]."""
        topic, facts, about = self._facts(prompts)
        shape = about.shape
        said = np.where(about, random.random(shape) >= self.omit, random.random(shape) < self.wander / 4)
        said[np.arange(len(said)), about.argmax(1)] |= ~said.any(1)
        thing = np.where(random.random(shape) < self.invent, random.integers(len(OBJECTS), size=shape), facts[..., 1])
        plural = _is_plural(topic)[:, None] ^ (random.random(shape) < self.disagree)
        adverb = np.where(
            random.random(shape) < self.adverb, random.integers(len(ADVERBS), size=shape) + ADVERBS[0], PAD
        )
        return self._sentence(topic, _form(facts[..., 0], plural), thing + OBJECTS[0], said, adverb)

    def ideal(self, prompts: Rows) -> Rows:
        """The summary with the highest gold reward."""
        topic, facts, about = self._facts(prompts)
        verb = _form(facts[..., 0], _is_plural(topic)[:, None])
        return self._sentence(topic, verb, facts[..., 1] + OBJECTS[0], about, np.full(about.shape, PAD))

    def pairs(self, random: np.random.Generator, count: int) -> Pairs:
        """Pairs of summaries of the same document that differ in gold reward."""
        kept: list[Pairs] = []
        while sum(len(pairs.prompts) for pairs in kept) < count:
            prompts = self.prompts(random, count)
            a, b = (self.responses(random, prompts) for _ in range(2))
            kept.append(preferred(prompts, a, b, self.gold(prompts, a) - self.gold(prompts, b)))
        return Pairs(*(np.concatenate(columns)[:count] for columns in zip(*kept)))

    def gold(self, prompts: Rows, responses: Rows) -> Float[np.ndarray, " n"]:
        """The true reward: share of the topic's facts that are told, less 0.15 for each token that is not `right`.

        A fact is told by its verb, in either number, followed by its object. A summary that does not begin with its
        topic loses 0.3.
        """
        told, _, valid = self._told(prompts, responses)
        _, _, about = self._facts(prompts)
        recall = told.any(1).sum(1) / about.sum(1)
        wrong = (valid & ~self.right(prompts, responses)).sum(1)
        return recall - 0.15 * wrong - 0.3 * (responses[:, 0] != self._facts(prompts)[0])

    def right(self, prompts: Rows, responses: Rows) -> Bool[np.ndarray, "n N"]:
        """Which tokens are right.

        Those are the topic in the first place; the verb of each fact, the first time, agreeing with the topic; the
        object that belongs to the verb before it; an AND behind an object, if a right verb is still to come; and the
        EOS if nothing is missing.
        """
        topic, _, about = self._facts(prompts)
        told, named, valid = self._told(prompts, responses)
        agrees = (responses - VERBS[0]) % _FORMS == _is_plural(topic)[:, None]
        verb = (named & (np.cumsum(named, axis=1) == 1)).any(2) & agrees
        thing = np.pad((told & (np.cumsum(told, axis=1) == 1)).any(2), ((0, 0), (1, 0)))[:, :-1]
        behind = np.pad((responses >= OBJECTS[0]) & (responses <= OBJECTS[-1]), ((0, 0), (1, 0)))[:, :-1]
        to_come = np.cumsum(verb[:, ::-1], axis=1)[:, ::-1] > 0
        columns = np.arange(responses.shape[1])
        right = ((columns == 0) & (responses == topic[:, None])) | verb | thing
        right |= (responses == AND) & behind & to_come
        whole = told.any(1).sum(1) == about.sum(1)
        return (right & valid) | ((columns == lengths(responses)[:, None]) & whole[:, None])

    def corrupted(self, random: np.random.Generator, prompts: Rows, kind: str) -> Rows:
        """Ideal summaries with one known error.

        A substitution says another object, an insertion puts an adverb before a verb, an omission leaves out a fact
        (with its AND).

        Raises:
            UserError: another kind.
        """
        if kind not in ("substitution", "insertion", "omission"):
            raise UserError(f"There is no corruption {kind!r}; choose substitution, insertion or omission.")
        topic, facts, about = self._facts(prompts)
        at = np.where(about, random.random(about.shape), -1).argmax(1)[:, None] == np.arange(_CLAUSES)
        verb, thing = _form(facts[..., 0], _is_plural(topic)[:, None]), facts[..., 1]
        adverb = random.integers(len(ADVERBS), size=about.shape) + ADVERBS[0]
        if kind == "substitution":
            used = (thing[:, :, None] == np.arange(len(OBJECTS))).any(1)
            other = np.where(used, -1.0, random.random(used.shape)).argmax(1)[:, None]
            thing = np.where(at, other, thing)
        said = about & ~at if kind == "omission" else about
        return self._sentence(topic, verb, thing + OBJECTS[0], said, np.where(at & (kind == "insertion"), adverb, PAD))

    def lengthened(self, random: np.random.Generator, prompts: Rows, by: int) -> Rows:
        """Ideal summaries that go on with so many facts about others."""
        topic, facts, about = self._facts(prompts)
        rank = np.where(about, 9.0, random.random(about.shape)).argsort(1).argsort(1)
        verb = _form(facts[..., 0], _is_plural(topic)[:, None])
        order = np.where(about, 0, 1)
        said = about | (rank < by)
        return self._sentence(topic, verb, facts[..., 1] + OBJECTS[0], said, np.full(about.shape, PAD), order)

    def _sentence(self, topic, verb, thing, said, adverb, order=None) -> Rows:
        """Topic, then the clauses said, with AND between them; `adverb` is PAD for none."""
        count = len(topic)
        if order is not None:
            places = np.argsort(order, axis=1, kind="stable")
            verb, thing, said, adverb = (np.take_along_axis(x, places, axis=1) for x in (verb, thing, said, adverb))
        join = np.where(said.cumsum(1) > 1, AND, PAD)
        clause = np.stack([join, adverb, verb, thing], axis=2)
        present = (said[:, :, None] & (clause != PAD)).reshape(count, -1)
        row = np.concatenate([topic[:, None], clause.reshape(count, -1)], axis=1)
        return ended(row, np.concatenate([np.ones((count, 1), bool), present], axis=1), self.response_length)

    def _facts(self, prompts: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Topic [n], verb and object of every clause [n, 5, 2] from 0, and which clauses tell of the topic [n, 5]."""
        rows = np.arange(len(prompts))
        topic = prompts[rows, (prompts == BOS).argmax(1) + 1]
        inside = (prompts != PAD) & (prompts != BOS) & (prompts != SEP)
        inside[rows, (prompts == BOS).argmax(1) + 1] = False
        number = np.cumsum((prompts == STOP) & inside, axis=1) - (prompts == STOP)  # of the clause
        of = inside[:, None] & (number[:, None] == np.arange(_CLAUSES)[:, None])

        def word(kind: range) -> np.ndarray:
            found = of & (prompts >= kind[0])[:, None] & (prompts <= kind[-1])[:, None]
            return np.take_along_axis(prompts[:, None], found.argmax(2)[..., None], axis=2)[..., 0]

        facts = np.stack([(word(VERBS) - VERBS[0]) // _FORMS, word(OBJECTS) - OBJECTS[0]], axis=2)
        return topic, facts, word(SUBJECTS) == topic[:, None]

    def _told(self, prompts: Rows, responses: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns that tell each of the topic's facts and that name its verb [n, N, 5]; where tokens are."""
        _, facts, about = self._facts(prompts)
        valid = np.arange(responses.shape[1]) < lengths(responses)[:, None]
        is_verb = valid & (responses >= VERBS[0]) & (responses <= VERBS[-1])
        is_verb &= (responses - VERBS[0]) % _FORMS < 2  # a participle tells nothing
        following = np.pad(np.where(valid, responses, PAD), ((0, 0), (0, 1)))[:, 1:]
        named = ((responses - VERBS[0]) // _FORMS)[:, :, None] == facts[:, None, :, 0]
        named &= is_verb[:, :, None] & about[:, None]
        return named & ((following - OBJECTS[0])[:, :, None] == facts[:, None, :, 1]), named, valid


def _form(verb: np.ndarray, form: np.ndarray | int) -> np.ndarray:
    """The token of a verb: 0 singular, 1 plural, 2 participle."""
    return VERBS[0] + _FORMS * verb + form


def _is_plural(subject: np.ndarray) -> np.ndarray:
    return subject >= SUBJECTS[len(SUBJECTS) // 2]
