"""Draws the lots for a street of the built-in scenes."""

from __future__ import annotations

import numpy as np

from kdsearch.data.scenes import shapes as shapes
from kdsearch.data.scenes.canvas import Array, Camera
from kdsearch.data.scenes.shapes import Shape
from kdsearch.data.scenes.street import (
    BICYCLE,
    BUILDING,
    CAR,
    PERSON,
    POLE,
    SIDEWALK,
    SKY,
    VEGETATION,
    Facades,
    Rng,
    Street,
    Thing,
    Weather,
)


def random_camera(rng: Rng, size: tuple[int, int]) -> Camera:
    """A camera that looks along the road, with the vanishing point near the middle."""
    height, width = size
    focal = width * rng.uniform(0.75, 1.1)
    return Camera(size, focal, height * rng.uniform(0.36, 0.5), width * rng.uniform(0.3, 0.7), rng.uniform(1.3, 1.9))


def random_step(rng: Rng, camera: Camera) -> Camera:
    """The camera one frame later: a step ahead, a little sideways, a small turn."""
    width = camera.size[1]
    return camera.moved(
        rng.normal(0, 0.04), rng.uniform(0, 0.55), width * rng.normal(0, 0.008), width * rng.normal(0, 0.003)
    )


def random_weather(rng: Rng) -> Weather:
    time = str(rng.choice(["day", "dusk", "night"], p=[0.4, 0.2, 0.4]))
    sun = {"day": rng.uniform(0.4, 1.0), "dusk": rng.uniform(0.25, 0.7), "night": rng.uniform(0.0, 0.3)}[time]
    return Weather(time, float(sun), bool(rng.random() < 0.3))


def random_street(rng: Rng) -> Street:
    """A street with houses, trees, traffic and people. All lots come from `rng`, in one order."""
    weather = random_weather(rng)
    lanes = int(rng.integers(2, 4))
    own_lane = int(rng.integers(0, lanes))
    left = -3.2 * (own_lane + 0.5)
    road = (left - rng.uniform(0, 0.8), left + 3.2 * lanes + rng.uniform(0, 0.8))
    widths = rng.uniform(2.0, 4.5, 2)
    pavement = (road[0] - widths[0], road[1] + widths[1])
    setback = rng.uniform(0.2, 3.5, 2) * (rng.random(2) < 0.6)
    junction = rng.uniform(14, 40)
    side_road = (junction, junction + rng.uniform(6, 9)) if rng.random() < 0.55 else (1e4, 1e4)
    facades = [_facades(rng, weather, pavement[0] - setback[0], side_road),
               _facades(rng, weather, pavement[1] + setback[1], side_road)]  # fmt: skip
    street = Street(
        weather=weather,
        road=road,
        pavement=pavement,
        lane_marks=[left + 3.2 * i for i in range(1, lanes)],
        crossing_z=side_road[0] - 2.5 if rng.random() < 0.6 else float(rng.uniform(6, 40)),
        side_road=side_road,
        verge=VEGETATION if rng.random() < 0.7 else SIDEWALK,
        texture=int(rng.integers(0, 200)),
        facades=facades,
        things=[],
        manholes=[(float(rng.uniform(*road)), float(rng.uniform(4, 20))) for _ in range(rng.integers(0, 4))],
        asphalt=float(rng.uniform(0.14, 0.3)),
    )
    things = street.things
    for side in facades:
        things += _fronts(rng, weather, side)
    things += _backdrop(rng, weather)
    things += _greenery(rng, weather, pavement, facades)
    things += _posts(rng, weather, road, pavement)
    things += _cars(rng, weather, road, left, lanes, own_lane, side_road)
    things += _people(rng, weather, road, pavement)
    return street


def _colour(rng: Rng, low: float, high: float, spread: float = 0.1) -> Array:
    return np.clip(rng.uniform(low, high) + rng.normal(0, spread, 3), 0.02, 0.95)


def _leaf(rng: Rng) -> Array:
    return np.array([0.16, 0.26, 0.08]) * rng.uniform(0.7, 1.5) + rng.normal(0, 0.02, 3)


def _facades(rng: Rng, weather: Weather, x: float, side_road: tuple[float, float]) -> Facades:
    edges, labels, heights = [float(rng.uniform(0, 4))], [], []
    while edges[-1] < 120:
        kind = int(rng.choice([BUILDING, VEGETATION, SKY], p=[0.55, 0.23, 0.22]))
        length = rng.uniform(8, 22) if kind == BUILDING else rng.uniform(3, 10)
        if edges[-1] < side_road[1] + 1 and edges[-1] + length > side_road[0] - 1:
            kind, length = SKY, side_road[1] + 2 - edges[-1]
        labels.append(kind)
        heights.append(rng.uniform(4, 15) if kind == BUILDING else rng.uniform(0.8, 2.4))
        edges.append(edges[-1] + length)
    colours = np.stack([_leaf(rng) if kind == VEGETATION else _colour(rng, 0.25, 0.65, 0.06) for kind in labels])
    lit = rng.random((8, 8)) < (0.35 if weather.time != "day" else 0.0)
    posters = [(float(rng.uniform(5, 25)), _person_shape(rng, 1.75, None)) for _ in range(rng.integers(0, 3))]
    return Facades(x, np.array(edges), np.array(heights), np.array(labels, np.uint8), colours, lit, posters)


def _fronts(rng: Rng, weather: Weather, side: Facades) -> list[Thing]:
    """The walls of buildings that face the camera, where a gap lies before them."""
    things = []
    for i, kind in enumerate(side.labels):
        if kind != BUILDING or (i > 0 and side.labels[i - 1] == BUILDING and side.heights[i - 1] >= side.heights[i]):
            continue
        width = float(rng.uniform(9, 16))
        shape = shapes.box(
            width, side.heights[i], 0.85 * side.colours[i], (0.15, 0.18, 0.22), weather.heat(0.36, 0.5), side.lit, i
        )
        x = side.x + np.sign(side.x) * width / 2
        things.append(Thing(BUILDING, shape, x, float(side.edges[i]), width / 2, side.heights[i]))
    return things


def _backdrop(rng: Rng, weather: Weather) -> list[Thing]:
    """What closes the view far away: blocks and woods."""
    things = []
    for _ in range(rng.integers(5, 12)):
        x, z = float(rng.uniform(-110, 110)), float(rng.uniform(125, 170))
        if rng.random() < 0.45:
            width, height = float(rng.uniform(12, 40)), float(rng.uniform(8, 34))
            lit = rng.random((8, 8)) < (0.3 if weather.time != "day" else 0.0)
            shape = shapes.box(
                width, height, _colour(rng, 0.3, 0.6, 0.05), (0.2, 0.24, 0.3), weather.heat(0.3, 0.45), lit, 3
            )
            things.append(Thing(BUILDING, shape, x, z, width / 2, height))
        else:
            crown = float(rng.uniform(8, 22))
            shape = shapes.tree(crown, crown, _leaf(rng), weather.heat(0.27, 0.36), int(rng.integers(200)), bush=True)
            things.append(Thing(VEGETATION, shape, x, z, 1.3 * crown, 1.3 * crown))
    return things


def _greenery(rng: Rng, weather: Weather, pavement: tuple[float, float], facades: list[Facades]) -> list[Thing]:
    things = []
    for _ in range(rng.integers(4, 12)):
        side = int(rng.integers(2))
        bush = bool(rng.random() < 0.35)
        wall = facades[side].x
        x = float(rng.uniform(min(pavement[side], wall), max(pavement[side], wall)) - (0.7 if side else -0.7))
        crown = float(rng.uniform(0.4, 0.9) if bush else rng.uniform(1.2, 2.6))
        height = 1.3 * crown if bush else float(rng.uniform(3.8, 7)) + crown
        shape = shapes.tree(height, crown, _leaf(rng), weather.heat(0.26, 0.36), int(rng.integers(200)), bush)
        things.append(Thing(VEGETATION, shape, x, float(rng.uniform(5, 45)), 1.25 * crown, height + 0.4 * crown))
    return things


def _posts(rng: Rng, weather: Weather, road: tuple[float, float], pavement: tuple[float, float]) -> list[Thing]:
    """Lamps, signs and bollards along the kerb, and cold statues of people, which count as posts."""
    things = []
    for _ in range(rng.integers(3, 9)):
        side = int(rng.integers(2))
        x = road[side] + (0.45 if side else -0.45)
        top = str(rng.choice(["lamp", "sign", "board", "none"], p=[0.35, 0.3, 0.15, 0.2]))
        height = {"lamp": rng.uniform(4.5, 7), "sign": rng.uniform(2.3, 3.2), "board": rng.uniform(2.2, 3.2)}.get(
            top, 1.0
        )
        lit = top == "lamp" and weather.time != "day"
        shape = shapes.post(float(height), 0.16 if top == "none" else 0.09, _colour(rng, 0.25, 0.55, 0.03),
                            weather.heat(0.24, 0.5), top, _colour(rng, 0.5, 0.9, 0.2), lit)  # fmt: skip
        things.append(Thing(POLE, shape, x, float(rng.uniform(4, 35)), 1.3, float(height) + 0.1, lamp=lit))
    for _ in range(rng.integers(0, 3)):
        side = int(rng.integers(2))
        x = float(rng.uniform(min(road[side], pavement[side]), max(road[side], pavement[side])))
        cold = weather.heat(0.27, 0.55)
        shape = _person_shape(rng, float(rng.uniform(1.6, 1.95)), (cold, cold, cold))
        things.append(Thing(POLE, shape, x, float(rng.uniform(4, 18)), 0.6, 2.0))
    return things


def _cars(
    rng: Rng,
    weather: Weather,
    road: tuple[float, float],
    left: float,
    lanes: int,
    own: int,
    side_road: tuple[float, float],
) -> list[Thing]:
    things = []
    lights = weather.time != "day" or rng.random() < 0.2

    def add(x: float, z: float, running: bool, motion: tuple[float, float], facing: int | None, oncoming: bool) -> None:
        paint = _colour(rng, 0.05, 0.85, 0.12)
        body = weather.heat(0.26, 0.62 - 0.15 * float(paint.mean()))
        warm = float(rng.uniform(0.62, 0.92)) if running else None
        if facing is None:
            lamp = ((1.0, 0.95, 0.85) if oncoming else (0.8, 0.05, 0.03)) if lights and running else None
            tall = float(rng.choice([1.45, 1.7, 2.3], p=[0.6, 0.28, 0.12]))
            shape: Shape = shapes.car_rear(paint, body, warm, lamp, oncoming, tall)
            half, height = 0.95, tall
        else:
            shape = shapes.car_side(paint, body, warm, (1.0, 0.95, 0.8) if lights and running else None, facing)
            half, height = 2.2, 1.5
        things.append(Thing(CAR, shape, x, z, half, height, motion))

    for lane in range(lanes):
        z = float(rng.uniform(5, 16)) + (3 if lane == own else 0)
        while z < 70 and rng.random() < 0.75:
            oncoming = lane < own
            speed = float(-rng.uniform(0, 0.6) if oncoming else rng.uniform(0, 0.7))
            add(left + 3.2 * (lane + 0.5) + float(rng.normal(0, 0.2)), z, True, (0.0, speed), None, oncoming)
            z += float(rng.uniform(6, 22))
    for side in (0, 1):
        if rng.random() < 0.6:
            z = float(rng.uniform(4.5, 9))
            for _ in range(rng.integers(1, 6)):
                x = road[side] + (1.0 if side else -1.0)
                add(x, z, False, (0.0, 0.0), None, bool(rng.random() < 0.5))
                z += float(rng.uniform(4.8, 8))
    if side_road[0] < 1e3:
        for _ in range(rng.integers(0, 3)):
            facing = int(rng.choice([-1, 1]))
            x = float(rng.uniform(-12, 12))
            z = side_road[0] + float(rng.uniform(1.5, 6))
            add(x, z, True, (facing * float(rng.uniform(0, 0.5)), 0.0), facing, False)
    return things


def _person_shape(rng: Rng, height: float, heats: tuple[float, float, float] | None, seated: bool = False) -> Shape:
    """A person in random clothes; without `heats` (head, torso, legs) one as warm as people are."""
    cover = rng.uniform(0.0, 0.2)
    warm = (0.88 + rng.normal(0, 0.03), 0.76 - cover + rng.normal(0, 0.03), 0.70 - cover + rng.normal(0, 0.03))
    skin = np.array([0.75, 0.55, 0.42]) * rng.uniform(0.4, 1.1)
    return shapes.person(height, 0.17 if seated else float(rng.uniform(0.0, 0.16)), skin, _colour(rng, 0.05, 0.6, 0.15),
                         _colour(rng, 0.05, 0.35, 0.06), heats or warm, seated)  # fmt: skip


def _people(rng: Rng, weather: Weather, road: tuple[float, float], pavement: tuple[float, float]) -> list[Thing]:
    things = []
    for _ in range(rng.integers(2, 9)):
        side, crossing = int(rng.integers(2)), rng.random() < 0.25
        lane = road if crossing else (min(road[side], pavement[side]), max(road[side], pavement[side]))
        x, z = float(rng.uniform(*lane)), float(rng.uniform(3.5, 8) if rng.random() < 0.4 else rng.uniform(6, 26))
        motion = (float(rng.normal(0, 0.12)), float(rng.normal(0, 0.05)))
        shape = _person_shape(rng, float(rng.uniform(1.5, 1.95)), None)
        things.append(Thing(PERSON, shape, x, z, 0.65, 2.0, motion))
    for _ in range(rng.integers(1, 6)):
        ridden, side = bool(rng.random() < 0.5), int(rng.integers(2))
        frontal, facing = bool(rng.random() < 0.3), int(rng.choice([-1, 1]))
        inside = 1.0 if side else -1.0
        x = (
            road[side] - inside * float(rng.uniform(0.3, 1.6))
            if ridden
            else road[side] + inside * float(rng.uniform(0.4, 2))
        )
        z = float(rng.uniform(3.8, 9) if rng.random() < 0.5 else rng.uniform(6, 20))
        motion = (0.0, 0.0)
        if ridden:
            motion = (0.0, float(rng.normal(0, 0.4))) if frontal else (facing * float(rng.uniform(0.05, 0.4)), 0.0)
        shape = shapes.bicycle(_colour(rng, 0.1, 0.7, 0.2), weather.heat(0.25, 0.5), facing, frontal)
        things.append(Thing(BICYCLE, shape, x, z, 1.0, 1.15, motion))
        if ridden:
            rider = _person_shape(rng, float(rng.uniform(1.5, 1.8)), None, seated=not frontal)
            things.append(Thing(PERSON, rider, x, z + 0.02, 0.65, 1.9, motion, y=0.32))
    return things
