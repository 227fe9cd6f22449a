"""ADE20K: scenes of all kinds with 150 classes, as in the scene parsing challenge (Zhou et al., CVPR 2017).

The official layout of `ADEChallengeData2016`: `images/training/`, `images/validation/` and `annotations/` alike. Labels
hold 1..150, and 0 for what is of no class, which is ignored.
"""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.info import IGNORE_INDEX, RGB_MEAN, RGB_STD, DatasetInfo
from kdsearch.data.readers.pairs import PairReader, Share, colour_map, pair_files

_NAMES = """
wall; building; sky; floor; tree; ceiling; road; bed; windowpane; grass; cabinet; sidewalk; person; earth; door;
table; mountain; plant; curtain; chair; car; water; painting; sofa; shelf; house; sea; mirror; rug; field; armchair;
seat; fence; desk; rock; wardrobe; lamp; bathtub; railing; cushion; base; box; column; signboard; chest of drawers;
counter; sand; sink; skyscraper; fireplace; refrigerator; grandstand; path; stairs; runway; case; pool table; pillow;
screen door; stairway; river; bridge; bookcase; blind; coffee table; toilet; flower; book; hill; bench; countertop;
stove; palm; kitchen island; computer; swivel chair; boat; bar; arcade machine; hovel; bus; towel; light; truck;
tower; chandelier; awning; streetlight; booth; television; airplane; dirt track; apparel; pole; land; bannister;
escalator; ottoman; bottle; buffet; poster; stage; van; ship; fountain; conveyer belt; canopy; washer; plaything;
swimming pool; stool; barrel; basket; waterfall; tent; bag; minibike; cradle; oven; ball; food; step; tank; trade
name; microwave; pot; animal; bicycle; lake; dishwasher; screen; blanket; sculpture; hood; sconce; vase; traffic
light; tray; ashcan; fan; pier; crt screen; plate; monitor; bulletin board; shower; radiator; glass; clock; flag
"""
INFO = DatasetInfo(
    name="ade20k",
    classes=tuple(" ".join(_NAMES.split()).split("; ")),
    palette=colour_map(151)[1:],
    channels=3,
    mean=RGB_MEAN,
    std=RGB_STD,
)
"""Classes are named by the first of their synonyms. Colours are not the published ones, of which two are equal."""


class ADE20K(PairReader):
    """Reader of ADE20K at `path`, the folder `ADEChallengeData2016`: 20,210 training and 2,000 validation images.

    `holdout`: see `hold_out`.
    """

    def __init__(self, path: Path, holdout: Share = 0.0) -> None:
        pairs = {
            split: pair_files(path / "images" / folder, path / "annotations" / folder, image_ends=(".jpg",))
            for split, folder in (("train", "training"), ("val", "validation"))
        }
        ids = {0: IGNORE_INDEX, **{value: value - 1 for value in range(1, INFO.num_classes + 1)}}
        super().__init__(path, INFO, pairs, ids=ids, holdout=holdout)
