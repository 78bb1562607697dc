"""The classes of Pascal VOC, COCO and LVIS, and which of them each protocol holds out. Names and sets only.

Source: the paper, Sec. 4.2 and 4.3, Tab. 4 to 8; the released settings for WordNet's synsets and the words of a person.
"""

from clipseg.errors import ClipSegError

# In the order of Pascal VOC's labels 1 to 20 -> the synset of WordNet 3.0 whose hyponyms belong to the class. A person's words
# are listed by hand instead (`PERSON_WORDS`): its 6,978 hyponyms would leave few phrases.
PASCAL_SYNSETS = {
    "aeroplane": "aeroplane.n.01",
    "bicycle": "bicycle.n.01",
    "bird": "bird.n.01",
    "boat": "vessel.n.02",
    "bottle": "bottle.n.01",
    "bus": "bus.n.01",
    "car": "car.n.01",
    "cat": "cat.n.01",
    "chair": "chair.n.01",
    "cow": "cattle.n.01",
    "dining table": "table.n.02",
    "dog": "dog.n.01",
    "horse": "horse.n.01",
    "motorbike": "motorcycle.n.01",
    "person": "person.n.01",
    "potted plant": "pot_plant.n.01",
    "sheep": "sheep.n.01",
    "sofa": "sofa.n.01",
    "train": "train.n.01",
    "tv monitor": "television.n.03",
}
PASCAL_CLASSES = tuple(PASCAL_SYNSETS)
VOC_NAMES = tuple(name.replace(" ", "") for name in PASCAL_CLASSES)  # as VOC spells them: the names that Pascal-5i asks by
PERSON_WORDS = ("person", "human", "man", "woman", "toddler", "baby", "body", "child", "infant")

FOLDS = 4
_PASCAL_FOLD_SIZE = len(PASCAL_CLASSES) // FOLDS

# Each larger set of Tab. 4 adds two classes to the one before.
_UNSEEN_ORDER = (
    ("cow", "motorbike"),
    ("aeroplane", "sofa"),
    ("cat", "tv monitor"),
    ("train", "bottle"),
    ("chair", "potted plant"),
)
UNSEEN_SETS = {
    2 * count: tuple(name for pair in _UNSEEN_ORDER[:count] for name in pair) for count in range(1, len(_UNSEEN_ORDER) + 1)
}

# Those that the scorer of Tab. 4 asks for, as released, by how many training removed: other sets than these.
SCORED_UNSEEN = {10: ("potted plant", "sheep", "sofa", "train", "tv monitor"), 4: ("cow", "motorbike")}

# In the order of the category ids of `instances_*.json`, whose gaps have no place here: index 79 is category 90.
# fmt: off
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
# fmt: on


def pascal5i_fold(fold: int) -> tuple[str, ...]:
    """The five classes that fold 0, 1, 2 or 3 of Pascal-5i holds out: labels 5 · fold + 1 to 5 · fold + 5 (Tab. 5 and 7).

    Raises:
        ClipSegError: there is no such fold.
    """
    _check_fold(fold, "Pascal-5i")
    return PASCAL_CLASSES[_PASCAL_FOLD_SIZE * fold : _PASCAL_FOLD_SIZE * (fold + 1)]


def coco20i_fold(fold: int) -> tuple[str, ...]:
    """The twenty classes that fold 0, 1, 2 or 3 of COCO-20i holds out: those of index ≡ fold (mod 4) (Tab. 6).

    Raises:
        ClipSegError: there is no such fold.
    """
    _check_fold(fold, "COCO-20i")
    return COCO_CLASSES[fold::FOLDS]


def _check_fold(fold: int, benchmark: str) -> None:
    if fold not in range(FOLDS):
        raise ClipSegError(f"fold {fold} of {benchmark} does not exist; expected one of 0, 1, 2, 3")


def unseen_classes(count: int) -> tuple[str, ...]:
    """The Pascal classes that are unseen in the generalised zero-shot protocol with 2, 4, 6, 8 or 10 of them (Tab. 4).

    Raises:
        ClipSegError: there is no set of this size.
    """
    if count not in UNSEEN_SETS:
        raise ClipSegError(f"no set of {count} unseen classes; expected one of {', '.join(map(str, UNSEEN_SETS))}")
    return UNSEEN_SETS[count]


def _lvis(names: str) -> tuple[str, ...]:
    """Names separated by commas, as the category names of `lvis_v1_*.json` spell them: "cab (taxi)" is cab_(taxi)."""
    return tuple(name.strip().replace(" ", "_") for name in names.split(","))


_SEATS = "armchair, sofa, loveseat, deck chair, rocking chair, highchair, folding chair, chair, recliner, wheelchair"

# Kind -> prompt -> the LVIS categories it is true of (Tab. 8).
LVIS_PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "affordances": {
        "sit on": _lvis(_SEATS),
        "drink from": _lvis("bottle, beer bottle, water bottle, wine bottle, thermos bottle"),
        "ride on": _lvis("horse, pony, motorcycle"),
    },
    "attributes": {
        "can fly": _lvis("eagle, jet plane, airplane, fighter jet, bird, duck, gull, owl, seabird, pigeon, goose, parakeet"),
        "can be driven": _lvis("minivan, bus (vehicle), cab (taxi), jeep, ambulance, car (automobile)"),
        "can swim": _lvis("duck, duckling, water scooter, penguin, boat, kayak, canoe"),
    },
    "meronymy": {
        "has wheels": _lvis(
            "dirt bike, car (automobile), wheelchair, motorcycle, bicycle, cab (taxi), minivan, bus (vehicle), jeep, ambulance"
        ),
        "has legs": _lvis(
            f"{_SEATS}, horse, pony, eagle, bird, duck, gull, owl, seabird, pigeon, goose, parakeet, dog, cat, flamingo, "
            "penguin, cow, puppy, sheep, black sheep, ostrich, ram (animal), chicken (animal), person"
        ),
    },
}

# What would teach those prompts, as released: a phrase is left out that holds one of them between spaces, in no other form.
# fmt: off
AFFORDANCE_WORDS = (
    "drink", "drinks", "drinking", "sit", "sits", "sitting", "ride", "rides", "riding", "fly", "flies", "flying",
    "drive", "drives", "driving", "driven", "swim", "swims", "swimming", "wheels", "wheel", "legs", "leg", "ear", "ears",
)
# fmt: on
