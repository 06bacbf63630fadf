"""Places for servers, shared by the pools of one database and user."""

from pooler.pool import Quota


class FakePool:
    def __init__(self, quota: Quota, size: int = 0) -> None:
        self.quota, self.size = quota, size
        self.asked = self.considered = 0
        quota.join(self)
        for _ in range(size):
            quota.take()

    def give_up_one(self) -> None:
        self.asked += 1

    def consider(self) -> None:
        self.considered += 1


def test_places_are_counted() -> None:
    quota = Quota(2)
    quota.take()
    assert quota.free == 1
    quota.take()
    assert quota.free == 0
    quota.give_back()
    assert quota.free == 1


def test_a_place_that_is_free_is_offered_to_whoever_has_least() -> None:
    quota = Quota(3)
    large, small = FakePool(quota, 2), FakePool(quota, 1)
    order = []
    for pool, name in ((large, "large"), (small, "small")):
        pool.consider = lambda name=name: order.append(name)  # type: ignore[method-assign]
    quota.give_back()
    assert order[0] == "small"


def test_the_largest_sibling_is_asked_to_give_one_up() -> None:
    quota = Quota(5)
    asking, large, small = FakePool(quota), FakePool(quota, 3), FakePool(quota, 2)
    quota.ask_siblings(asking)
    assert (asking.asked, large.asked, small.asked) == (0, 1, 0)


def test_without_siblings_nobody_is_asked() -> None:
    quota = Quota(1)
    asking = FakePool(quota)
    quota.ask_siblings(asking)
    assert asking.asked == 0
