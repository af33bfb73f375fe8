"""Known functions of Python: classes, generators, callbacks from C, and one of the library."""

import json
import random


class Parser:
    def __init__(self, text: str) -> None:
        self.text = text

    def parse(self) -> list[dict[str, object]]:
        return json.loads(self.text)


def spin(limit: int) -> int:
    total = 0
    for number in range(limit):
        total = (total * 31 + number) % 1000003
    return total


def squares(limit: int):
    for number in range(limit):
        yield number * number % 7


def add(limit: int) -> int:
    return sum(squares(limit))


def weigh(row: dict[str, object]) -> int:
    value = row["value"]
    return -value if isinstance(value, int) else 0


def order(rows: list[dict[str, object]]) -> object:
    return sorted(rows, key=weigh)[0]


def descend(depth: int) -> int:
    return spin(3000) if depth == 0 else descend(depth - 1)


def turn(parser: Parser, draw: random.Random) -> None:
    """No order and no length twice, or a regular sampler would favour one step."""
    step = draw.randrange(4)
    if step == 0:
        order(parser.parse())
    elif step == 1:
        spin(draw.randrange(3000, 9000))
    elif step == 2:
        add(draw.randrange(2000, 6000))
    else:
        descend(20)


def main() -> None:
    rows = [{"value": n * 7919 % 1009, "name": f"row {n}"} for n in range(600)]
    parser = Parser(json.dumps(rows))
    draw = random.Random(1)
    while True:
        turn(parser, draw)


main()
