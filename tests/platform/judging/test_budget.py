"""What is spent and what may yet be stays within the budget, and nobody waits for ever."""

import asyncio
import random

import pytest

from visionprefer.judging.budget import Budget, BudgetSpent


@pytest.mark.parametrize("seed", range(8))
def test_requests_of_any_prices_end_when_the_budget_does(seed: int) -> None:
    """Sums of unequal prices leave a rest of 1e-18 when all are done: none may wait for that to go."""
    chance, budget = random.Random(seed), Budget(0.02)
    prices = [chance.uniform(1e-4, 3e-4) for _ in range(300)]

    async def ask(worst: float) -> bool:
        try:
            async with budget.reserve(worst) as charge:
                await asyncio.sleep(0)
                charge.cost = worst * 0.7
                return True
        except BudgetSpent:
            return False

    async def ask_all() -> list[bool]:
        return list(await asyncio.gather(*map(ask, prices)))

    answered = asyncio.run(asyncio.wait_for(ask_all(), 20))
    assert 0 < sum(answered) < len(prices)
    assert budget.spent <= 0.02
    assert budget.spent > 0.02 - max(prices)  # what fits is let through
