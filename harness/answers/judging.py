"""Pairs of answers to a judge, in both orders: what is judged already, what is left, the asking."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.answers.endpoint import Endpoint, EndpointError, RequestRefused, Stopped
from harness.answers.judge_prompt import JudgePrompt, choice_of
from harness.answers.verdicts import Judge, Verdict, VerdictLog, identity_of
from harness.errors import EvaluationError

MOST_REFUSED = 3
"""Requests that a judge which has not answered yet may refuse before it is given up."""
CHARACTERS_PER_TOKEN = 4
"""Of English, about: for what is said before anything is sent."""


@dataclass(frozen=True)
class Showing:
    """Two answers in the order in which a judge sees them."""

    instruction: str
    first: str
    second: str

    @property
    def identity(self) -> str:
        """What verdicts on it are filed under."""
        return identity_of(self.instruction, self.first, self.second)


@dataclass(frozen=True)
class Pair:
    """A cell's answer and the reference's to one instruction."""

    instruction: str
    answer: str
    reference: str

    @property
    def is_alike(self) -> bool:
        """Whether both say the same: a tie, without a judge."""
        return self.answer == self.reference

    @property
    def showings(self) -> tuple[Showing, Showing]:
        """Both orders: the answer first, then the reference first."""
        return (
            Showing(self.instruction, self.answer, self.reference),
            Showing(self.instruction, self.reference, self.answer),
        )


@dataclass(frozen=True)
class Asker:
    """Who is to judge, and how it is asked."""

    model: str
    prompt: JudgePrompt

    def current(self, log: VerdictLog) -> Judge | None:
        """Who answered last when it was asked in this way; None where nobody has."""
        return log.newest(self.model, self.prompt.sha256, self.prompt.settings)

    def judge(self, reported: str) -> Judge:
        """The judge that an endpoint says it is."""
        return Judge(self.model, reported, self.prompt.sha256, self.prompt.settings)


def missing_showings(pairs: Iterable[Pair], log: VerdictLog, judge: Judge | None) -> list[Showing]:
    """What has no verdict of this judge yet, each once; all of it where there is no judge yet."""
    every = {
        showing.identity: showing
        for pair in pairs
        if not pair.is_alike
        for showing in pair.showings
    }
    return [
        showing for name, showing in every.items() if judge is None or judge not in log.of(name)
    ]


def judge_of(pairs: Sequence[Pair], asker: Asker, log: VerdictLog) -> Judge | None:
    """Who judges pairs: who answered last when asked in this way, or one before it who has judged
    all of them; None where nobody has answered yet."""
    last = asker.current(log)
    alike = [one for one in log.judges if one == asker.judge(one.reported) and one != last]
    for judge in [last, *reversed(alike)] if last is not None else []:
        if not missing_showings(pairs, log, judge):
            return judge
    return last


def tokens_of(showings: Sequence[Showing], prompt: JudgePrompt) -> int:
    """About how many tokens requests hold, without the judge's answers."""
    characters = len(prompt.system) + len(prompt.user)
    total = sum(
        characters + len(one.instruction) + len(one.first) + len(one.second) for one in showings
    )
    return -(-total // CHARACTERS_PER_TOKEN)


@dataclass(frozen=True)
class Asked:
    """What came of asking."""

    num_verdicts: int
    refused: tuple[str, ...]
    """Why single requests were refused: pairs of these have no verdict."""


def ask(
    showings: Sequence[Showing],
    endpoint: Endpoint,
    asker: Asker,
    log: VerdictLog,
    *,
    parallel: int,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
) -> Asked:
    """Has each judged, and writes each verdict to the log before anything else.

    The first is asked alone: it tells who answers, and whether anybody does. Where it is refused,
    which may be for what is in it, the next one is.

    Raises:
        EndpointError: the endpoint cannot be used; what was judged until then is in the log.
        EvaluationError: another model answers now than the one that gave the stored verdicts.
        StorageError: a verdict cannot be written.
    """
    if not showings:
        return Asked(0, ())
    before, refused = asker.current(log), list[str]()
    for number, showing in enumerate(showings[:MOST_REFUSED], start=1):
        try:
            first = _judged(showing, endpoint, asker, log)
        except RequestRefused as fault:
            refused.append(str(fault))
            continue
        on_verdict(first)
        if before is not None and first.judge != before:
            raise _changed(endpoint, before, first.judge)
        pool = _Pool(showings[number:], endpoint, asker, log, first.judge)
        return pool.run(parallel, on_verdict, Asked(1, tuple(refused)))
    if before is None:
        raise EndpointError(refused[0])
    pool = _Pool(showings[MOST_REFUSED:], endpoint, asker, log, before)
    return pool.run(parallel, on_verdict, Asked(0, tuple(refused)))


def _judged(showing: Showing, endpoint: Endpoint, asker: Asker, log: VerdictLog) -> Verdict:
    body = asker.prompt.body(asker.model, showing.instruction, showing.first, showing.second)
    reply = endpoint.chat(body)
    verdict = Verdict(
        judge=asker.judge(reply.model),
        shown=showing.identity,
        choice=choice_of(reply.text),
        text=endpoint.masked(reply.text),  # the choice is read before: a key may be "A"
        finish_reason=reply.finish_reason,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )
    log.add(verdict)
    return verdict


class _Pool:
    """Threads that ask until all is judged or one finds that it cannot go on.

    They are daemons: a command that is interrupted ends without waiting for a slow endpoint.
    """

    def __init__(
        self,
        showings: Sequence[Showing],
        endpoint: Endpoint,
        asker: Asker,
        log: VerdictLog,
        judge: Judge,
    ) -> None:
        self._todo: queue.SimpleQueue[Showing] = queue.SimpleQueue()
        for showing in showings:
            self._todo.put(showing)
        self._ended: queue.SimpleQueue[Verdict | BaseException | None] = queue.SimpleQueue()
        self._endpoint, self._asker, self._log, self._judge = endpoint, asker, log, judge

    def run(self, parallel: int, on_verdict: Callable[[Verdict], None], so_far: Asked) -> Asked:
        number, refused = so_far.num_verdicts, list(so_far.refused)
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(parallel)]
        for thread in threads:
            thread.start()
        fault: BaseException | None = None
        working = len(threads)
        try:
            while working:
                found = self._ended.get()
                if found is None:
                    working -= 1
                elif isinstance(found, Verdict):
                    number += 1
                    on_verdict(found)
                elif isinstance(found, RequestRefused):
                    refused.append(str(found))
                elif not isinstance(found, Stopped):
                    fault = fault or found
        finally:
            self._endpoint.stop()
        if fault is not None:
            raise fault
        return Asked(number, tuple(refused))

    def _work(self) -> None:
        """What a thread does; whatever it meets goes to the thread that waits."""
        try:
            while True:
                try:
                    showing = self._todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    verdict = _judged(showing, self._endpoint, self._asker, self._log)
                except RequestRefused as refused:
                    self._ended.put(refused)
                    continue
                self._ended.put(verdict)
                if verdict.judge != self._judge:
                    raise _changed(self._endpoint, self._judge, verdict.judge)
        except BaseException as fault:
            self._endpoint.stop()
            self._ended.put(fault)
        finally:
            self._ended.put(None)


def _changed(endpoint: Endpoint, before: Judge, now: Judge) -> EvaluationError:
    return EvaluationError(
        f"{endpoint.shown}: {now.model} is '{now.reported}' now, and was '{before.reported}' "
        "before: their verdicts do not mix; run the same command again to have all pairs judged "
        "by the one that answers then"
    )
