"""Limits on what a paid server is asked: requests and tokens a minute, and money."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from visionprefer.errors import InputError


class BudgetSpent(InputError):
    """The next request could pass the budget."""


class Pace:
    """So many units a minute, evenly: no burst after a pause, which a server that counts by the second would refuse."""

    def __init__(self, per_minute: float | None) -> None:
        self.seconds = 60 / per_minute if per_minute else 0.0
        self.free = 0.0

    async def wait(self, units: float = 1) -> None:
        """Return when so many units may go; whoever asks first goes first."""
        now = asyncio.get_running_loop().time()
        turn = max(now, self.free)
        self.free = turn + units * self.seconds
        await asyncio.sleep(turn - now)

    def give_back(self, units: float) -> None:
        """Count so many units less than were waited for."""
        self.free -= units * self.seconds


class Charge:
    """What one request may cost until its answer is there, and what it cost then."""

    def __init__(self, worst: float) -> None:
        self.cost = worst  # of a request whose answer was lost: it may have been charged


class Budget:
    """Money, in the currency of the prices: what is spent and what requests in flight may yet cost stays within it."""

    def __init__(self, most: float | None, spent: float = 0.0) -> None:
        self.most = most
        self.spent = spent
        self.in_flight, self._requests = 0.0, 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reserve(self, worst: float) -> AsyncIterator[Charge]:
        """Set so much aside for one request. While others are in flight and could leave enough, wait for them.

        Raises:
            BudgetSpent: if too little is left, and nothing in flight that could leave more.
        """
        charge = Charge(worst)
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(worst) or not self._requests)
            if not self._fits(worst):
                raise BudgetSpent(
                    f"api.budget is {self.most:g}, of which {self.spent:g} is spent; the next request may cost "
                    f"{worst:g}. Raise the budget and run again: what was answered is kept"
                )
            self.in_flight, self._requests = self.in_flight + worst, self._requests + 1
        try:
            yield charge
        finally:
            async with self._changed:
                self._requests -= 1
                self.in_flight = self.in_flight - worst if self._requests else 0.0  # sums of floats leave a rest
                self.spent += charge.cost
                self._changed.notify_all()

    def _fits(self, worst: float) -> bool:
        return self.most is None or self.spent + self.in_flight + worst <= self.most
