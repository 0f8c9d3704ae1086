"""The traffic of a shop: users over HTTP, users with a browser, and requests driven on demand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from pytest_otel_diag.shop.demo.data import PEOPLE, PRODUCT_IDS
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.kernel import (
    Call,
    Instance,
    RpcFailure,
    SpanOutcome,
    Steps,
    World,
    exception_event,
)
from pytest_otel_diag.shop.services import frontend_web, load_generator
from pytest_otel_diag.shop.services.product_catalog import FAILING
from pytest_otel_diag.shop.traffic import tasks
from pytest_otel_diag.shop.traffic.user import User

RAMP_S = 8.0
"""Users arrive spread over this time."""
VU_POLL_S = 10.0
VU_RESTART_S = 3.0
DRIVE_GAP_S = 0.25
"""Time between the starts of driven requests."""

TIMEOUT_RATIO = 0.02
"""Share of browser tasks that time out in Playwright under Locust, as in the demo."""
_TIMED_OUT = SpanOutcome(
    "Error",
    "TimeoutError: Page.goto: Timeout 30000ms exceeded.",
    events=(exception_event("TimeoutError", "Page.goto: Timeout 30000ms exceeded.", escaped=False),),
)

# the task that reaches a service; a checkout reaches all other services
_REACHED_BY = {
    "ad": "get_ads",
    "recommendation": "get_recommendations",
    "product-catalog": "browse_product",
    "astronomy-db": "browse_product",
    "frontend": "index",
    "frontend-proxy": "index",
    "load-generator": "index",
    "flagd": "browse_product",
    "frontend-web": "browser",
    "image-provider": "browser",
    "product-reviews": "ask_product_ai_assistant",
    "llm": "ask_product_ai_assistant",
}


class DemoTraffic:
    """The traffic of a shop; *users* and *browser_users* are the numbers of the variation."""

    def __init__(self, world: World, release: DemoRelease, *, users: int, browser_users: int) -> None:
        self._world = world
        self._release = release
        self._users = users
        self._browser_users = browser_users
        self._factor = 1.0
        self._started = False
        self._pause_until_s = 0.0
        self._flag_users: int | None = None
        self._first_flag_users: int | None = None
        self._driven = 0

    def start(self) -> None:
        """Let the users start; does nothing the second time."""
        self._started = True

    def load(self, factor: float) -> None:
        """Set the number of users to *factor* times that of the variation, browsers included."""
        self._factor = factor

    def drive(self, services: Sequence[str], calls: int) -> int:
        """Schedule requests that reach each of the services about *calls* times; return their number.

        One task may reach several of the services: each kind of task is sent *calls* times.
        """
        tasks = dict.fromkeys(_REACHED_BY.get(service, "checkout") for service in services)
        steps: list[Callable[[], Steps]] = []
        for task in tasks:
            steps += self._tasks(task, calls)
        for turn, begin in enumerate(steps):
            self._world.spawn(self._later(DRIVE_GAP_S * (turn + 1), begin))
        return len(steps)

    def _tasks(self, task: str, calls: int) -> list[Callable[[], Steps]]:
        instances = self._world.service(load_generator.NAME).instances
        if not instances:
            return []
        self._driven += 1
        user = User(instances[0], self._release, self._world.rng(f"driven/{self._driven}"))
        if task == "checkout":
            # alternate customers inside and outside the United States: shipping abroad is rare otherwise
            abroad = [person for person in PEOPLE if person.country != "United States"]
            people = itertools.cycle((*abroad, *PEOPLE[: len(abroad)]))
            return [partial(user.checkout, person) for person in itertools.islice(people, calls)]
        if task == "browse_product":
            ids = itertools.cycle((FAILING, *(product for product in PRODUCT_IDS if product != FAILING)))
            return [partial(user.browse_product, product) for product in itertools.islice(ids, calls)]
        if task == "browser":
            return [self._visit] * calls
        return [getattr(user, task)] * calls

    def _visit(self) -> Steps:
        return frontend_web.add_to_cart(
            frontend_web.Page(self._world.service(frontend_web.SERVICE).instances[0])
        )

    def _later(self, seconds: float, begin: Callable[[], Steps]) -> Steps:
        yield self._world.sleep(seconds)
        yield from begin()

    # the process of the load generator

    def run(self, instance: Instance) -> Steps:
        """Run the target number of users until the process ends."""
        here = [0, 0]
        if "loadGeneratorVUs" in self._release.flags:
            instance.run(self._watch_users(instance))
        while True:
            if self._started and self._world.now_s >= self._pause_until_s:
                wanted = self._wanted()
                for kind, life in enumerate((self._user_life, self._browser_life)):
                    for number in range(here[kind], wanted[kind]):
                        instance.run(life(instance, number))
                    here[kind] = max(here[kind], wanted[kind])  # surplus users wait
            yield self._world.sleep(1.0)

    def _wanted(self) -> tuple[int, int]:
        """Return the target numbers of HTTP users and of browser users."""
        users = self._users
        if self._flag_users is not None and self._flag_users != self._first_flag_users:
            users = self._flag_users
        return round(users * self._factor), round(self._browser_users * self._factor)

    def _here(self, number: int, kind: int) -> bool:
        return self._world.now_s >= self._pause_until_s and number < self._wanted()[kind]

    def _watch_users(self, instance: Instance) -> Steps:
        """Poll the flag for the number of users as the container's entry point does; a change restarts k6."""
        while True:
            users = int((yield from Call.root(instance).flag("loadGeneratorVUs", self._users)))
            if self._first_flag_users is None:
                self._first_flag_users = users
            elif users != self._flag_users:
                self._pause_until_s = self._world.now_s + VU_RESTART_S
            self._flag_users = users
            yield self._world.sleep(VU_POLL_S)

    def _user_life(self, instance: Instance, number: int) -> Steps:
        rng = self._world.rng(f"user/{instance.ordinal}/{number}")
        user = User(instance, self._release, rng)
        yield self._world.sleep(rng.uniform(0.0, RAMP_S))
        begun = False
        while True:
            while not self._here(number, 0):
                yield self._world.sleep(1.0)
            if not (yield from self._traffic(instance, user)):
                yield self._world.sleep(user.think_s())
                continue
            if not begun:
                begun = True
                yield from user.start()
            start_s = float(self._world.env.now)
            yield from user.task()
            yield self._world.sleep(user.think_s())
            user.iterated(float(self._world.env.now) - start_s)

    def _traffic(self, instance: Instance, user: User) -> Steps:
        """Return whether users may run a task: release 3.0 evaluates a flag before each task."""
        if "loadGeneratorTraffic" not in self._release.flags:
            return True
        value = yield from user.flag(Call.root(instance), "loadGeneratorTraffic", 1)
        return value > 0

    def _browser_life(self, instance: Instance, number: int) -> Steps:
        rng = self._world.rng(f"browser/{instance.ordinal}/{number}")
        user = User(instance, self._release, rng)
        shape = load_generator.task_shapes(self._release)
        yield self._world.sleep(rng.uniform(0.0, RAMP_S))
        while True:
            while not self._here(number, 1):
                yield self._world.sleep(1.0)
            if (yield from self._traffic(instance, user)):
                first = rng.random() < 0.5
                call = Call.root(instance)
                with call.span(shape("browser_change_currency" if first else "browser_add_to_cart")):
                    done = "Currency changed to CHF" if first else "Product added to cart successfully"
                    call.log("INFO", done)
                    if self._release.locust and rng.random() < TIMEOUT_RATIO:
                        call.fail(outcome=_TIMED_OUT)
                    else:
                        yield from self._browse(first=first)
                    yield from call.wait(tasks.browser_stay_s(rng))
            yield self._world.sleep(user.think_s())

    def _browse(self, *, first: bool) -> Steps:
        tabs = self._world.service(frontend_web.SERVICE).instances
        if not tabs:
            return
        page = frontend_web.Page(tabs[0])
        try:
            yield from (frontend_web.change_currency(page) if first else frontend_web.add_to_cart(page))
        except RpcFailure:
            return  # the browser closes the page
