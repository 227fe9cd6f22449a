"""COCO-Stuff 164K: everyday scenes with 80 thing and 91 stuff classes (Caesar et al., CVPR 2018).

The official layout: `images/train2017/NAME.jpg`, `images/val2017/` and `annotations/` alike, with pixel maps
`NAME.png`. Their values are COCO's category ids less one, 0..181, and 255 for unlabelled pixels. Eleven of the 182
categories (street sign, hat, shoe, ...) were never annotated; the other 171 keep their order and become 0..170.
"""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.info import IGNORE_INDEX, RGB_MEAN, RGB_STD, DatasetInfo
from kdsearch.data.readers.pairs import PairReader, Share, colour_map, pair_files

UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Values of the categories without annotations: street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door,
blender and hair brush."""

_NAMES = """
person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light; fire hydrant; stop sign; parking
meter; bench; bird; cat; dog; horse; sheep; cow; elephant; bear; zebra; giraffe; backpack; umbrella; handbag; tie;
suitcase; frisbee; skis; snowboard; sports ball; kite; baseball bat; baseball glove; skateboard; surfboard; tennis
racket; bottle; wine glass; cup; fork; knife; spoon; bowl; banana; apple; sandwich; orange; broccoli; carrot; hot dog;
pizza; donut; cake; chair; couch; potted plant; bed; dining table; toilet; tv; laptop; mouse; remote; keyboard; cell
phone; microwave; oven; toaster; sink; refrigerator; book; clock; vase; scissors; teddy bear; hair drier; toothbrush;
banner; blanket; branch; bridge; building-other; bush; cabinet; cage; cardboard; carpet; ceiling-other; ceiling-tile;
cloth; clothes; clouds; counter; cupboard; curtain; desk-stuff; dirt; door-stuff; fence; floor-marble; floor-other;
floor-stone; floor-tile; floor-wood; flower; fog; food-other; fruit; furniture-other; grass; gravel; ground-other;
hill; house; leaves; light; mat; metal; mirror-stuff; moss; mountain; mud; napkin; net; paper; pavement; pillow;
plant-other; plastic; platform; playingfield; railing; railroad; river; road; rock; roof; rug; salad; sand; sea;
shelf; sky-other; skyscraper; snow; solid-other; stairs; stone; straw; structural-other; table; tent; textile-other;
towel; tree; vegetable; wall-brick; wall-concrete; wall-other; wall-panel; wall-stone; wall-tile; wall-wood;
water-other; waterdrops; window-blind; window-other; wood
"""
INFO = DatasetInfo(
    name="coco_stuff",
    classes=tuple(" ".join(_NAMES.split()).split("; ")),
    palette=colour_map(172)[1:],
    channels=3,
    mean=RGB_MEAN,
    std=RGB_STD,
)


class COCOStuff(PairReader):
    """Reader of COCO-Stuff 164K at `path`: 118,287 training and 5,000 validation images.

    `holdout`: see `hold_out`.
    """

    def __init__(self, path: Path, holdout: Share = 0.0) -> None:
        pairs = {
            split: pair_files(path / "images" / folder, path / "annotations" / folder, image_ends=(".jpg",))
            for split, folder in (("train", "train2017"), ("val", "val2017"))
        }
        used = [value for value in range(182) if value not in UNUSED]
        ids = {**{value: i for i, value in enumerate(used)}, 255: IGNORE_INDEX}
        super().__init__(path, INFO, pairs, ids=ids, holdout=holdout)
