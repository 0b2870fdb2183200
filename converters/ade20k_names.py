"""Names the 150 objects of ADE20K's scene parsing benchmark, in the order of channels.

Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017. The first synonym of
each line of objectInfo150.txt in CSAILVision/sceneparsing (BSD 3-Clause, Copyright (c)
2019 MIT CSAIL Computer Vision). CSAILVision/semantic-segmentation-pytorch has the same
list in data/object150_info.csv, but separates words as it separates synonyms: a "coffee
table" is a "coffee" there.
"""

_TEXT = """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet,
    sidewalk, person, earth, door, table, mountain, plant, curtain, chair, car, water,
    painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk,
    rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest
    of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand,
    path, stairs, runway, case, pool table, pillow, screen door, stairway, river,
    bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
    countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade
    machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television, airplane, dirt track, apparel, pole, land, bannister, escalator,
    ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy,
    washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag,
    minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal,
    bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic
    light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower,
    radiator, glass, clock, flag,
"""

NAMES = tuple(" ".join(name.split()) for name in _TEXT.split(",") if name.strip())
