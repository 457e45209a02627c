"""The engine `openai`: any server that speaks OpenAI's chat completions, asked about many images at once."""

import asyncio
import email.utils
import os
import threading
import time
from typing import Any

from visionprefer.engine_settings import ApiSettings, EngineSettings
from visionprefer.errors import InputError, missing_extra
from visionprefer.judging.budget import Budget, BudgetSpent, Charge, Pace
from visionprefer.judging.engine import Reply, Request, chat
from visionprefer.models import Model

LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
LONGEST_ASKED = 600.0  # the same, if it asks for more: a request that waits keeps others from its place
LONGEST_ERROR = 300  # characters
SHORTEST_SECRET = 16  # the same: servers of one's own take any word as a key, and judges write words


class OpenAIEngine:
    """Asks a server, with many requests in flight.

    What is wrong with one request is that request's reply. What is wrong with all of them (the key, the model's name,
    the budget) stops the run: the answers of that call are handed over first, and the next call raises.

    The key is read from the environment and stays in this object: it is taken out of whatever the server says.

    Raises:
        InputError: if the environment variable with the key is not set, or openai is not installed.
    """

    def __init__(self, settings: EngineSettings, model: Model, spent: float = 0.0) -> None:
        try:
            import openai
        except ImportError as error:
            raise missing_extra("openai", "api") from error
        self.settings = settings
        self.api = settings.api
        self.model = model.name
        self.structured = settings.structured
        self.fatal: InputError | None = None
        self._answered = False
        self._key = _key(self.api)
        self._client = openai.AsyncOpenAI(
            base_url=self.api.base_url, api_key=self._key or "none", timeout=self.api.timeout, max_retries=0
        )
        self._requests, self._tokens = Pace(self.api.requests_per_minute), Pace(self.api.tokens_per_minute)
        self._free = asyncio.Semaphore(self.api.concurrency)
        self._budget = Budget(self.api.budget, spent)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="openai").start()

    def ask(self, requests: list[Request]) -> list[Reply]:
        """Answer all requests. Several threads may ask at once: they share the limits.

        Raises:
            InputError: if the server refuses all requests, or the budget is spent.
        """
        if self.fatal:
            raise self.fatal
        replies = asyncio.run_coroutine_threadsafe(self._ask_all(requests), self._loop).result()
        if self.fatal and not any(reply.text or reply.completion_tokens or reply.cost for reply in replies):
            raise self.fatal  # nothing is lost by it
        return replies

    def describe(self) -> str:
        """What was chosen, for the person at the terminal."""
        where = self._client.base_url.host
        return f"{self.model} at {where} is asked up to {self.api.concurrency} things at once"

    async def _ask_all(self, requests: list[Request]) -> list[Reply]:
        return await asyncio.gather(*map(self._ask, requests))

    async def _ask(self, request: Request) -> Reply:
        """The reply of the server, after as many tries as it takes and the recipe allows."""
        import openai
        import tenacity

        tries = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.api.retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )
        charges: list[Charge] = []  # of all tries: the answer to one that was lost may have been charged
        async with self._free:
            if self.fatal:
                return Reply(None, 0, 0, error=f"not asked: {self.fatal}")
            try:
                reply: Reply = await tries(self._try, request, charges)
                self._answered = True
            except BudgetSpent as error:
                self.fatal = error
                reply = Reply(None, 0, 0, error=f"not asked: {error}")
            except openai.APIStatusError as error:
                if self._concerns_all(error):
                    self.fatal = InputError(f"api: {self._told(error)}. {_MEND.get(error.status_code, _PAY)}")
                reply = Reply(None, 0, 0, error=self._told(error))
            except (openai.OpenAIError, TimeoutError, ValueError) as error:  # ValueError: an answer that is no JSON
                reply = Reply(None, 0, 0, error=self._told(error))
            return reply._replace(cost=sum(charge.cost for charge in charges) if charges and self.api.price else None)

    def _concerns_all(self, error: Any) -> bool:
        """Whether no request has a chance; 403 and 404 say so unless others were answered: some servers moderate."""
        if error.status_code == 401 or _is_out_of_credit(error):
            return True
        return error.status_code in _MEND and not self._answered

    async def _try(self, request: Request, charges: list[Charge]) -> Reply:
        import openai

        worst, structured = self._worst(request), self.structured
        async with self._budget.reserve(self._price(*worst)) as charge:
            charges.append(charge)
            await self._requests.wait()
            await self._tokens.wait(sum(worst))
            try:
                async with asyncio.timeout(self.api.timeout):  # the client's own begins anew with every byte
                    completion = await self._client.chat.completions.create(**self._body(request, structured))
                reply = self._reply(completion, charge)
                self._tokens.give_back(sum(worst) - reply.prompt_tokens - reply.completion_tokens)
                return reply
            except openai.APIStatusError as error:
                charge.cost = 0.0
                if error.status_code != 400 or not structured or "response_format" not in str(error):
                    raise
        self.structured = False  # this server cannot be held to a schema; replies are read strictly anyway
        return await self._try(request, charges)

    def _body(self, request: Request, structured: bool) -> dict[str, Any]:
        schema = {"name": "verdict", "strict": True, "schema": request.schema}
        form = {"response_format": {"type": "json_schema", "json_schema": schema}} if structured else {}
        return {
            "model": self.model,
            "messages": chat(request),
            "max_completion_tokens": self.settings.max_new_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "extra_body": self.settings.sampling,
            **form,
        }

    def _reply(self, completion: Any, charge: Charge) -> Reply:
        choices = getattr(completion, "choices", None)
        if not choices:  # a page of a proxy, or JSON that is something else
            return Reply(None, 0, 0, error=self._told(f"the answer is no chat completion but begins {completion!r}"))
        usage, choice = completion.usage, choices[0]
        asked, answered = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        if usage:
            charge.cost = self._price(asked, answered)
        text, refusal = choice.message.content, choice.message.refusal
        error = None if text else f"the model refused: {refusal}" if refusal else "the reply is empty"
        return Reply(
            self._scrubbed(text) if text and len(self._key) >= SHORTEST_SECRET else text,
            asked,
            answered,
            error=error and self._told(error),
            cut_off=choice.finish_reason == "length",
        )

    def _worst(self, request: Request) -> tuple[int, int]:
        """Most tokens of the request and of its reply: a token of text is a byte at least."""
        asked = len(request.text.encode()) + len(request.images) * self.api.image_tokens
        return asked, self.settings.max_new_tokens

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        if not self.api.price:
            return 0.0
        return (prompt_tokens * self.api.price.prompt + completion_tokens * self.api.price.completion) / 1e6

    def _told(self, error: object) -> str:
        if isinstance(error, TimeoutError):
            return f"timed out after {self.api.timeout:g} s"
        text = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        return self._scrubbed(text)[:LONGEST_ERROR]

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


_PAY = "Mend the account's credit and run again: what was answered is kept"
_MEND = {
    401: "Set the environment variable that api.key_from names to a key that this server takes",
    403: "Set the environment variable that api.key_from names to a key that may use this model",
    404: "Write a model and an api.base_url that this server knows",
}


def _key(api: ApiSettings) -> str:
    key = os.environ.get(api.key_from, "")
    if not key and api.base_url is None:
        raise InputError(f"api.key_from: the environment variable {api.key_from} is not set. Set it to your key")
    return key  # servers of one's own often want none


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return (error.status_code in (408, 409, 429) or error.status_code >= 500) and not _is_out_of_credit(error)
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def _is_out_of_credit(error: Any) -> bool:
    return error.status_code == 402 or error.code == "insufficient_quota"


def _wait(state: Any) -> float:
    """Seconds until the next try: what the server asks for or, doubling, a time drawn by chance."""
    import tenacity

    chance: float = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT)(state)
    response: Any = getattr(state.outcome.exception(), "response", None)
    asked = _retry_after(response.headers.get("retry-after")) if response is not None else 0.0
    return min(asked, LONGEST_ASKED) + min(chance, 1.0) if asked else chance  # not all at once


def _retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, a number or a date (RFC 9110, section 10.2.3); 0 if it is neither."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
