import threading
import time

from service.decoding.budget import PixelBudget


def test_images_get_their_turn_in_order_while_there_is_room() -> None:
    budget, granted = PixelBudget(100), []
    assert budget.take(60, lambda: True)

    def take(pixels: int) -> None:
        budget.take(pixels, lambda: True)
        granted.append(pixels)

    threads = []
    for pixels in (70, 40):
        threads.append(threading.Thread(target=take, args=(pixels,)))
        threads[-1].start()
        time.sleep(0.1)
    assert granted == []  # 40 would fit, but 70 came first
    budget.give(60)
    threads[0].join()
    time.sleep(0.1)
    assert granted == [70]
    budget.give(70)
    threads[1].join()
    assert granted == [70, 40]


def test_an_image_over_the_limit_is_decoded_alone() -> None:
    budget = PixelBudget(100)
    assert budget.take(250, lambda: True)
    waiting = threading.Thread(target=budget.take, args=(1, lambda: True))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    budget.give(250)
    waiting.join()


def test_who_does_not_want_its_turn_any_more_takes_nothing() -> None:
    budget = PixelBudget(100)
    assert budget.take(100, lambda: True)
    assert not budget.take(1, lambda: False)
    budget.give(100)
    assert budget.take(100, lambda: True)


def test_nobody_overtakes_those_who_wait() -> None:
    budget = PixelBudget(100)
    assert budget.take_now(60) and not budget.take_now(50)
    waiting = threading.Thread(target=budget.take, args=(50, lambda: True))
    waiting.start()
    time.sleep(0.05)
    assert not budget.take_now(10)
    budget.give(60)
    waiting.join()
    assert budget.take_now(10)
