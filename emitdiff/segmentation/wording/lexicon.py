"""Words of requests: how targets may be called besides the names they were taught by, and what may stand around them.

Data alone; `reader.py` reads texts by it. Words are singular and in British spelling. A word that is nowhere here and
in nothing that a checkpoint was taught is unknown, and a text with an unknown word in or beside the name is no request:
so a list that lacks a word costs a question, never a false mask.
"""

from __future__ import annotations

# Nouns and adjectives of one thing, the first its usual name. An adjective names it together with one of `SUBSTANCE`
# ("hepatic parenchyma"); a phrase of a noun alone does by itself.
SYNONYMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lung": (("lung", "lung field", "pulmonary field"), ("pulmonary",)),
    "liver": (("liver", "hepar"), ("hepatic",)),
    "pancreas": (("pancreas",), ("pancreatic",)),
    "spleen": (("spleen", "lien"), ("splenic",)),
    "prostate": (("prostate", "prostate gland"), ("prostatic",)),
    "nuclei": (("nucleus", "cell nucleus", "nuclear region", "cell"), ("nuclear", "cell nuclear")),
    "ventricle": (("ventricle", "heart ventricle", "cardiac ventricle", "heart chamber", "chamber of heart"), ()),
    "left ventricle": (
        ("left ventricle", "lv", "left heart chamber", "left chamber of heart", "left ventricular cavity", "lv cavity",
         "left ventricle cavity", "cavity of left ventricle", "left ventricular blood pool", "lv blood pool",
         "blood pool of left ventricle", "left ventricle blood pool", "left ventricular lumen",
         "left ventricular chamber"),
        (),
    ),
    "right ventricle": (("right ventricle", "rv", "right heart chamber", "right ventricular cavity", "rv cavity"), ()),
    "left atrium": (("left atrium", "la", "left atrial cavity"), ()),
    "right atrium": (("right atrium", "ra", "right atrial cavity"), ()),
    "myocardium": (("myocardium", "heart muscle", "cardiac muscle"), ("myocardial",)),
    "heart": (("heart", "whole heart"), ("cardiac",)),
    "kidney": (("kidney", "ren"), ("renal",)),
    "stomach": (("stomach",), ("gastric",)),
    "gallbladder": (("gallbladder", "gall bladder"), ()),
    "bladder": (("bladder", "urinary bladder"), ("vesical",)),
    "oesophagus": (("oesophagus", "gullet"), ("oesophageal",)),
    "adrenal gland": (("adrenal gland", "suprarenal gland", "adrenal"), ()),
    "aorta": (("aorta",), ("aortic",)),
    "inferior vena cava": (("inferior vena cava", "ivc", "postcava"), ()),
    "colon": (("colon", "large bowel", "large intestine"), ("colonic",)),
    "small bowel": (("small bowel", "small intestine"), ()),
    "brain": (("brain",), ("cerebral",)),
    "thyroid": (("thyroid", "thyroid gland"), ("thyroid",)),
    "optic disc": (("optic disc", "optic disk", "optic nerve head"), ()),
    "rib": (("rib", "costa"), ("costal",)),
    "uterus": (("uterus", "womb"), ("uterine",)),
}  # fmt: skip
# Nouns that an organ's adjective needs, and its name may have: the whole of it is meant.
SUBSTANCE = (
    "tissue", "parenchyma", "organ", "gland", "region", "area", "field", "segmentation", "mask", "outline", "contour",
    "boundary", "volume", "silhouette",
)  # fmt: skip
# What a lesion of the breast is called together with the breast, and those of them that say enough alone.
LESIONS = ("lesion", "tumour", "mass", "nodule", "cyst", "lump", "cancer", "carcinoma", "neoplasm", "abnormality")
PLAIN_LESIONS = ("lesion", "tumour", "mass", "nodule", "cyst", "lump")

# Things that are asked for and not taught to the embedded weights, by the target nearest to them: to suggest it.
NEAREST = {
    "lung": (
        "pneumonia", "consolidation", "opacity", "infiltrate", "infiltration", "infection", "effusion", "pneumothorax",
        "embolism", "atelectasis", "emphysema", "bronchiectasis", "fibrosis", "tuberculosis", "covid", "covid 19",
        "interstitial", "ground glass", "cavity", "airway", "rib", "clavicle", "collarbone", "scapula", "trachea",
        "bronchus", "diaphragm", "hilum", "mediastinum", "pleura", "cardiac silhouette", "heart shadow", "rib cage",
        "upper lobe", "lower lobe", "middle lobe", "lobe", "chest", "thorax", "sternum", "granuloma", "oedema",
    ),
    "liver": (
        "gallbladder", "bile duct", "portal vein", "hepatic vein", "hepatic artery", "cirrhosis", "steatosis",
        "fatty liver", "hepatitis", "hepatocellular carcinoma", "hcc", "haemangioma", "abscess", "metastasis",
        "ascites",
        "kidney", "abdomen", "stomach", "vena cava", "inferior vena cava",
    ),
    "pancreas": ("pancreatic duct", "pancreatitis", "pseudocyst", "duodenum", "insulinoma", "bile duct"),
    "spleen": ("splenomegaly", "splenic artery", "splenic vein", "left kidney", "laceration"),
    "prostate": (
        "bladder", "urinary bladder", "rectum", "urethra", "seminal vesicle", "peripheral zone", "transition zone",
        "central zone", "hyperplasia", "bph", "pi rads", "pelvis", "neurovascular bundle",
    ),
    "breast lesion": (
        "breast", "nipple", "areola", "calcification", "microcalcification", "fibroadenoma", "carcinoma", "cancer",
        "dcis",
        "pectoral muscle", "fibroglandular tissue", "lymph node", "malignancy", "neoplasm", "duct", "skin",
    ),
    "nuclei": (
        "cytoplasm", "membrane", "nucleolus", "mitosis", "mitotic figure", "lymphocyte", "blood cell", "erythrocyte",
        "epithelium", "stroma", "cell body", "apoptotic body", "bacterium", "gland", "neutrophil", "chromatin",
    ),
    "left ventricle": (
        "heart", "myocardium", "right ventricle", "left atrium", "right atrium", "ventricle", "atrium", "septum",
        "papillary muscle", "pericardium", "aortic valve", "mitral valve", "infarction", "scar", "epicardium",
        "endocardium", "ventricular wall",
    ),
}  # fmt: skip

# Image kinds in requests, by the modality that dataset.json writes: harmless beside a target.
MODALITIES = {
    "x-ray": (
        "x ray", "xray", "radiograph", "radiography", "cxr", "film", "roentgenogram", "plain film", "chest film",
    ),
    "ct": ("ct", "computed tomography", "cat scan", "computed tomogram", "hounsfield", "cect", "ncct"),
    "mri": ("mri", "mr", "magnetic resonance", "magnetic resonance imaging", "magnetic resonance tomography", "cine",
            "t1", "t2", "t1w", "t2w", "t1 weighted", "t2 weighted", "flair", "dwi", "adc", "cmr", "mrt", "ssfp"),
    "ultrasound": ("ultrasound", "sonogram", "sonography", "echography", "echogram", "b mode", "bus", "usg"),
    "microscopy": (
        "microscopy", "micrograph", "photomicrograph", "histology", "histopathology", "pathology", "slide", "section",
        "tissue section", "fluorescence", "brightfield", "bright field", "h&e",
        "haematoxylin and eosin", "haematoxylin eosin", "microscope", "whole slide image", "wsi",
    ),
    "mammography": ("mammogram", "mammography"),
}  # fmt: skip
VIEWS = (
    "axial", "coronal", "sagittal", "transverse", "transversal", "frontal", "pa", "ap", "posteroanterior",
    "anteroposterior", "short axis", "long axis", "contrast enhanced", "contrast", "enhanced", "non contrast",
    "without contrast",
    "without contrast agent", "without contrast medium", "no contrast", "unenhanced", "native", "phase",
    "portal venous", "portal venous phase", "arterial phase", "venous phase", "late phase", "lung window",
    "soft tissue window",
    "bone window", "abdominal window", "weighted", "diastole", "systole", "end diastole", "end systole", "diastolic",
    "systolic", "tomogram", "tomography", "imaging", "radiology", "radiological", "clinical", "medical", "grey scale",
    "greyscale", "doppler", "erect", "supine", "prone", "expiration", "inspiration", "3d", "2d",
)  # fmt: skip
# Regions as places ("in the chest"), by the organ that dataset.json writes.
PLACES = {
    "chest": ("chest", "thorax", "thoracic", "thoracal"),
    "abdomen": ("abdomen", "abdominal", "belly", "tummy", "upper abdomen", "upper abdominal"),
    "breast": ("breast", "mammary"),
    "prostate": ("pelvis", "pelvic"),
    "heart": ("heart", "cardiac"),
    "": ("body", "torso", "trunk"),
}  # fmt: skip

NEGATIONS = (
    "no", "not", "without", "none", "never", "nor", "neither", "nothing", "nowhere", "cannot", "absent", "absence",
    "lack",
    "lacking", "missing", "free", "non", "negative", "exclude", "excluding", "excluded", "except", "excepting", "but",
    "ignore", "ignoring", "ignored", "remove", "removing", "removed", "erase", "hide", "delete", "subtract", "minus",
    "skip", "avoid", "omit", "omitting", "rule out", "ruled out", "ruling out", "other than", "rather than",
    "instead of",
    "apart from", "aside from", "besides", "invisible", "unseen", "excised", "resected", "anti", "unlike", "neg",
)  # fmt: skip
RELATIONS = (
    "around", "along", "outside", "behind", "beside", "near", "nearby", "next to", "next", "above", "below", "beneath",
    "under", "over", "between", "adjacent", "adjacent to", "surrounding", "surround", "neighbouring", "neighbour",
    "close to", "closest", "beyond", "against", "opposite", "touching", "bordering", "surrounded", "before", "after",
    "other", "else",
    "toward", "towards", "underneath", "across", "complement", "inverse", "opposite of", "rest", "remaining",
    "remainder",
)  # fmt: skip
# Verbs after which "at" or "on" what is asked for stands.
LOOKS = ("look", "focus", "zoom", "concentrate", "work", "zoom in")
# A line around a thing means the thing.
LINES = ("draw", "outline", "contour", "trace", "line", "circle", "box", "loop", "path", "delineate")
PARTS = (
    "part", "half", "lobe", "lobule", "apex", "base", "tip", "tail", "head", "neck", "body", "portion", "zone", "third",
    "quadrant", "wall", "capsule", "duct", "vessel", "vein", "artery", "surface", "centre", "middle", "end", "pole",
    "bottom", "top", "cortex", "medulla", "septum", "cavity", "layer", "rim", "core", "fragment", "piece", "section of",
    "subsegment", "segment of", "corner", "fissure", "margin zone", "hilum", "root", "segment", "compartment",
)  # fmt: skip
SIDES = ("left", "right")
DIRECTIONS = (
    "upper", "lower", "middle", "central", "centre", "peripheral", "anterior", "posterior", "superior", "inferior",
    "medial", "lateral", "apical", "basal", "distal", "proximal", "top", "bottom", "dorsal", "ventral", "inner",
    "outer",
    "cranial", "caudal", "mid", "uppermost", "lowermost", "leftmost", "rightmost", "periphery",
)  # fmt: skip
PICTURES = ("image", "picture", "scan", "slice", "photo", "photograph", "frame", "view", "screen", "film", "exam")

REQUESTS = (
    "segment", "find", "show", "mark", "outline", "delineate", "highlight", "contour", "extract", "locate", "detect",
    "identify", "draw", "trace", "annotate", "label", "colour", "paint", "see", "look", "get", "give", "need", "want",
    "like", "measure", "count", "localise", "display", "isolate", "mask", "map", "visualise", "point", "tell",
    "indicate",
    "circle", "select", "pick", "crop", "compute", "calculate", "estimate", "determine", "quantify", "predict",
    "produce", "create", "make", "generate", "provide", "return", "output", "search", "spot", "recognise", "capture",
    "cover", "fill", "shade", "overlay", "know", "help", "try", "use", "check", "view", "appear", "lie", "belong",
    "contain", "focus", "zoom", "concentrate", "examine", "inspect", "evaluate", "assess", "study", "demarcate",
    "define", "describe", "encircle", "frame", "depict", "present", "reveal", "start", "begin", "do", "go", "come",
    "let", "help", "take", "put", "work", "call", "name", "add", "save", "export", "open", "load", "process", "analyse",
    "analyze", "review", "consider", "request", "ask", "wish", "require", "hope", "think", "believe", "suspect",
    "assume",
    "exist", "occur", "sit", "situate", "find out", "pick out", "cut out", "single out", "point out", "figure out",
    "separate", "distinguish", "differentiate", "discern", "perceive", "notice", "observe", "note", "follow", "track",
    "respond", "reply", "share", "love", "stain", "distribute", "pack", "cluster", "scatter", "spread", "enclose",
    "bound", "delimit", "classify", "grade",
)  # fmt: skip
FILLERS = (
    "a", "an", "the", "this", "that", "these", "those", "it", "its", "they", "them", "their", "he", "she", "his", "her",
    "him", "i", "me", "my", "we", "our", "you", "your", "us", "one", "two", "three", "four", "five", "and", "or", "as",
    "is", "are", "was", "were", "be", "been", "being", "am", "has", "have", "had", "having", "does", "did", "done",
    "can", "could", "would", "should", "will", "shall", "may", "might", "must", "please", "pls", "kindly", "thank",
    "thanks", "ok", "okay", "hi", "dear", "what", "which", "where", "who", "whose", "how", "when", "why", "if",
    "whether",
    "then", "now", "here", "there", "just", "only", "also", "too", "again", "once", "very", "quite", "rather", "more",
    "most", "less", "much", "so", "such", "same", "own", "exactly", "about", "approximately", "up", "down", "out",
    "away",
    "to", "for", "with", "by", "via", "using", "per", "than", "because", "since", "while", "during", "s", "d", "ll",
    "re",
    "ve", "m", "e", "g", "ie", "eg", "etc", "l", "r", "first", "second", "last", "new", "current", "given", "following",
    "shown", "seen", "made", "drawn", "kept", "great", "good", "best", "better", "well", "clear", "full", "simple",
    "quick",
    "high", "higher", "highest", "low", "lowest", "big", "bigger", "biggest", "large", "larger", "largest", "small",
    "smaller", "smallest", "long", "wide", "many", "few", "some", "any", "all", "every", "each", "both", "either",
    "together", "alone", "everywhere", "somewhere", "possible", "able", "available", "sure", "certain", "interested",
    "interest",
    "still", "yet", "ever", "always", "often", "today", "soon", "ready", "right away", "let s", "let us", "of course",
    "that s", "what s", "where s", "i d", "i m", "could you", "maybe", "perhaps", "actually", "currently", "namely",
    "sided", "hand", "handed", "mm", "cm", "ml", "percent", "number", "total",
)  # fmt: skip
# Between what is asked for and where it is: what follows one of them is not what is asked for.
DETERMINERS = (
    "this",
    "that",
    "these",
    "those",
    "his",
    "her",
    "its",
    "their",
    "my",
    "our",
    "your",
    "each",
    "every",
    "any",
)
# Words beside prepositions that begin what says how, what for or where: "using a network", "for a talk".
ADJUNCTS = ("for", "to", "by", "via", "using", "as", "per", "than", "like", "during", "because", "since", "while")
MEANS = ("use", "apply", "employ", "utilise", "try", "run", "utilize")  # verbs of how something is to be found
# Words before a verb that asks for something: an unknown word behind them may be one.
ASKING = ("please", "pls", "kindly", "you", "to", "let", "i", "we")
# Endings of findings, so that an unknown word with one of them is taken for one.
FINDING_ENDINGS = (
    "itis", "osis", "oma", "emia", "aemia", "pathy", "ectasis", "ectasia", "plasia", "trophy", "megaly", "rrhage",
    "stenosis",
    "sclerosis", "oedema", "lith", "cele", "uria", "algia", "plegia", "sarcoma", "carcinoma", "thorax", "infarct",
    "gram",
    "ation of", "ism", "lesion", "tumour", "cancer", "disease", "syndrome", "failure", "injury", "fracture", "rupture",
    "abscess", "stone", "ulcer", "thrombus", "clot", "scar", "oid", "cyte", "blast", "phage",
)  # fmt: skip
CONTAINED = ("in", "on", "within", "inside", "at", "into", "onto", "from", "through", "throughout", "upon", "off")
ADJECTIVES = (
    "whole", "entire", "full", "complete", "total", "single", "several", "multiple", "numerous", "individual",
    "different", "various", "normal", "healthy", "unremarkable", "visible", "apparent", "suspected",
    "probable", "likely", "obvious", "tiny", "huge", "little", "round", "oval", "irregular", "regular", "dark",
    "bright",
    "dense", "stained", "unstained", "overlapping", "clustered", "isolated", "elongated", "sparse", "even", "uneven",
    "unclear", "blurred", "blurry", "sharp", "smooth", "heterogeneous", "homogeneous", "adult", "human", "enlarged",
    "shrunken",
    "swollen", "red", "orange", "yellow", "blue", "purple", "violet", "green", "pink", "grey", "black", "coloured",
    "dapi", "hoechst",
    "haematoxylin", "bilateral", "bilaterally", "paired", "aerated", "inflated", "anatomical", "actual", "exact",
    "precise",
    "accurate", "rough", "approximate", "binary", "manual", "automatic", "thin", "thick", "flat", "deep", "main",
    "dominant",
    "similar", "faint", "pale", "intense", "fluorescent", "labelled", "counterstained", "packed", "crowded",
    "distributed",
    "scattered", "uniform", "diffuse", "focal", "discrete", "separate", "adjacent ones", "male", "female", "old",
    "young",
)  # fmt: skip
# Said of lesions, not of organs: beside an organ's name they ask for something in it.
LESION_ADJECTIVES = (
    "benign", "malignant", "suspicious", "abnormal", "cancerous", "tumorous", "hypoechoic", "hyperechoic",
    "anechoic", "isoechoic",
    "echogenic", "solid", "cystic", "complex", "circumscribed", "defined", "lobulated", "spiculated", "microlobulated",
    "angular", "indistinct", "shadowing", "palpable", "vascular", "taller than wide", "invasive", "primary",
    "ill defined",
    "ill", "poorly", "growing", "necrotic",
)  # fmt: skip
NOUNS = (
    "mask", "image", "picture", "scan", "slice", "photo", "photograph", "view", "volume", "size", "extent", "location",
    "position", "place", "contour", "outline", "boundary", "border", "edge", "margin", "shape", "silhouette",
    "segmentation", "roi", "region of interest", "label", "annotation", "overlay", "target", "instance", "figure",
    "frame", "file", "study", "exam", "examination", "dataset", "data", "sample", "report", "thesis", "paper",
    "lecture",
    "project", "planning", "radiotherapy", "surgery", "treatment", "analysis", "research", "measurement",
    "quantification",
    "volumetry", "density", "count", "amount", "distribution", "appearance", "delineation", "detection", "localisation",
    "identification", "visualisation", "screen", "case", "example", "result", "answer", "question", "task", "job",
    "line", "box", "ring", "colour", "class", "group", "set", "series", "stack", "test", "check", "time", "moment",
    "way",
    "diameter", "length", "width", "height", "perimeter", "circumference", "ratio", "percentage", "fraction",
    "background image",
    "purpose", "teaching", "training", "publication", "presentation", "proportion", "share", "limit", "stain",
    "staining",
)  # fmt: skip
# Behind the name of an organ these are something in it ("liver spot").
THINGS = ("spot", "mark", "dot", "point", "patch", "change", "object", "thing", "structure", "something", "anything")
# Nouns of anything: "in the lung" after them asks for something else than the lung.
ANYTHING = (
    "area", "region", "tissue", "organ", "shape", "volume", "field", "parenchyma", "gland", *THINGS,
)  # fmt: skip
PIXELS = ("pixel", "voxel")
PERSONS = (
    "patient", "man", "woman", "person", "subject", "child", "boy", "girl", "lady", "gentleman", "infant", "baby",
    "volunteer",
    "year old", "month old", "week old", "day old", "donor", "individual", "mother", "father", "year", "animal",
    "mouse", "human being",
)  # fmt: skip
# After a person: what follows is about the person.
OF_PERSONS = (
    "with",
    "who",
    "after",
    "suffering",
    "diagnosed",
    "having",
    "undergoing",
    "post",
    "under",
    "having",
    "for",
)

BRITISH = {
    "tumor": "tumour", "edema": "oedema", "hemorrhage": "haemorrhage", "hematoxylin": "haematoxylin", "gray": "grey",
    "esophagus": "oesophagus", "esophageal": "oesophageal", "color": "colour", "center": "centre",
    "hemangioma": "haemangioma",
    "neighbor": "neighbour", "neighboring": "neighbouring", "grayscale": "greyscale", "disk": "disc",
    "colored": "coloured",
    "labeled": "labelled", "leukemia": "leukaemia", "anemia": "anaemia", "ischemia": "ischaemia",
    "hematoma": "haematoma",
}  # fmt: skip
IRREGULAR = {
    "nuclei": "nucleus", "masses": "mass", "metastases": "metastasis", "vertebrae": "vertebra", "apices": "apex",
    "cortices": "cortex", "foci": "focus", "bacteria": "bacterium", "mitoses": "mitosis", "nucleoli": "nucleolus",
    "men": "man", "women": "woman", "children": "child", "halves": "half", "diagnoses": "diagnosis",
    "analyses": "analysis",
    "axes": "axis", "bronchi": "bronchus", "septa": "septum", "atria": "atrium", "ova": "ovum",
    "carcinomata": "carcinoma",
    "data": "data", "feet": "foot", "teeth": "tooth", "indices": "index", "hila": "hilum", "calyces": "calyx",
    "abscesses": "abscess", "discs": "disc", "lenses": "lens", "pancreata": "pancreas", "costae": "costa",
}  # fmt: skip
UNCHANGED = ("pancreas", "lens", "series", "axis", "pelvis", "uterus", "thorax", "this", "its", "his", "us", "is",
    "was", "as",
             "has", "does", "plus", "minus", "besides", "towards", "whereas", "always", "perhaps", "yes", "s", "ss",
             "ascites", "meniscus", "bus", "les", "anus", "corpus")  # fmt: skip
