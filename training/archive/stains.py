"""The stain that the name of a file states: its class, its usual name, how sure that is."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

# Usual name -> how it is written in names of files, without regard to case; parts of a name are
# separated by anything that is neither letter nor digit.
_HE = {"H&E": r"h ?& ?e|h and e|hes?|he\d?|haematoxylin|hematoxylin|hematoxylin ?eosin|hande"}
_SPECIAL = {
    "PAS": r"pas|pasd|pas d",
    "Alcian blue": r"alcian(?: ?blue)?|ab ?pas",
    "Masson": r"masson(?: ?trichrome)?|trichrom(?:e)?",
    "Silver": r"jones|pams|gms|grocott|gomori|reticulin|retic|warthin(?: ?starry)?|silver",
    "Giemsa": r"giemsa",
    "Congo red": r"congo(?: ?red)?",
    "Ziehl-Neelsen": r"ziehl(?: ?neelsen)?|zn",
    "Elastica": r"evg|elastica|van ?gieson|verhoeff",
    "Prussian blue": r"prussian(?: ?blue)?|perls|berlin(?:er)? ?blau",
    "Sirius red": r"sirius(?: ?red)?|picrosirius",
    "EBER ISH": r"eber|ebv ?ish",
    "Mucicarmine": r"mucicarmine?",
}
_CYTOLOGY = {"Papanicolaou": r"papanicolaou|pap", "May-Gruenwald": r"mgg|may ?gr(?:ue|u)nwald"}
_MARKERS = {
    "Ki-67": r"ki ?67|mib ?1",
    "HER2": r"her ?2(?: ?neu)?|erbb2|cerb ?b2",
    "ER": r"er|esr1|estrogen(?: ?receptor)?",
    "PR": r"pr|pgr|progesterone(?: ?receptor)?",
    "PD-L1": r"pd ?l ?1|22c3|sp142|sp263|28 8",
    "p53": r"p ?53|tp53",
    "p16": r"p ?16",
    "p40": r"p ?40",
    "p63": r"p ?63",
    "AMACR": r"amacr|p504s",
    "TTF-1": r"ttf ?1",
    "BCL2": r"bcl ?2",
    "BCL6": r"bcl ?6",
    "MUM1": r"mum ?1|irf4",
    "SOX10": r"sox ?10",
    "S100": r"s ?100",
    "Melan-A": r"melan ?a|mart ?1",
    "HMB-45": r"hmb ?45",
    "Vimentin": r"vim(?:entin)?",
    "Desmin": r"desmin",
    "SMA": r"sma|asma|actin",
    "Synaptophysin": r"syn(?:aptophysin)?",
    "Chromogranin": r"chromogranin(?: ?a)?|chga",
    "Cytokeratin": r"pan ?ck|ae1(?: ?ae3)?|cytokeratin|cam ?5 ?2|keratin",
    "E-cadherin": r"e ?cad(?:herin)?|cdh1",
    "MLH1": r"mlh ?1",
    "MSH2": r"msh ?2",
    "MSH6": r"msh ?6",
    "PMS2": r"pms ?2",
    "GATA3": r"gata ?3",
    "PAX8": r"pax ?8",
    "CDX2": r"cdx ?2",
    "PSA": r"psa|nkx3 ?1",
    "FOXP3": r"foxp ?3",
    "H. pylori": r"h ?pylori|helicobacter",
}
_SHORT = frozenset({"ER", "PR", "PSA", "SMA", "PAS", "Papanicolaou", "Ziehl-Neelsen"})
_CD = re.compile(r"(?<![a-z0-9])cd ?(\d{1,3}[a-e]?)(?![a-z0-9])")
_CK = re.compile(r"(?<![a-z0-9])ck ?(\d{1,2})(?![a-z0-9])")
_IHC = re.compile(r"(?<![a-z0-9])(?:ihc|dab|immuno(?:histochemistry|peroxidase)?)(?![a-z0-9])")
_SURE, _LIKELY, _GUESS = 0.97, 0.9, 0.7


def _pattern(names: dict[str, str]) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """One pattern for many stains, with a group for each, and the names of the groups."""
    groups = "|".join(f"({pattern})" for pattern in names.values())
    return re.compile(rf"(?<![a-z0-9])(?:{groups})(?![a-z0-9])"), tuple(names)


_CLASSES = (
    ("ihc", *_pattern(_MARKERS)),
    ("special", *_pattern(_SPECIAL)),
    ("cytology", *_pattern(_CYTOLOGY)),
    ("he", *_pattern(_HE)),
)


@dataclass(frozen=True)
class NamedStain:
    """A stain by its name.

    Attributes:
        stain_class: he, ihc, special, cytology, mixed; "unknown" where nothing is named.
        stain: Its usual name; several with " + "; "" where nothing is named.
        confidence: Probability that the class is right, by the kind of name: not measured.
    """

    stain_class: str
    stain: str
    confidence: float


NOTHING = NamedStain("unknown", "", 0.0)


def stain_in(*texts: str) -> NamedStain:
    """The stain that texts name; the first that names one decides.

    Two or three letters that also occur in other names (ER, PR, PAS) count less.

    Args:
        texts: Names of a file, descriptions.

    Returns:
        The stain, or NOTHING.
    """
    return next((found for text in texts if (found := _named(text)) is not NOTHING), NOTHING)


@functools.lru_cache(maxsize=1 << 16)
def _named(text: str) -> NamedStain:
    plain = re.sub(r"[^a-z0-9&]+", " ", text.casefold())
    found: dict[str, list[str]] = {}
    markers = [f"CD{m[1]}" for m in _CD.finditer(plain)]
    markers += [f"CK{m[1]}" for m in _CK.finditer(plain)]
    if markers:
        found["ihc"] = markers
    for stain_class, pattern, stains in _CLASSES:
        # inside the patterns no group is kept, so that the last one is the stain's own
        names = [stains[(m.lastindex or 1) - 1] for m in pattern.finditer(plain)]
        if names:
            found.setdefault(stain_class, []).extend(names)
    if _IHC.search(plain):
        found.setdefault("ihc", [])
    if not found:
        return NOTHING
    long = {k: v for k, v in found.items() if not v or not _SHORT.issuperset(v)}
    chosen = long or found
    if len(chosen) > 1 and set(chosen) != {"he", "ihc"}:
        names = [name for several in chosen.values() for name in several]
        return NamedStain("unknown", " + ".join(dict.fromkeys(names)), 0.0)
    if len(chosen) > 1:  # an archive's "HE" beside a marker is the counterstain, or a pair
        return NamedStain("ihc", " + ".join(dict.fromkeys(chosen["ihc"])), _GUESS)
    stain_class, names = next(iter(chosen.items()))
    sure = _SURE if long and names else _LIKELY if long else _GUESS
    return NamedStain(stain_class, " + ".join(dict.fromkeys(names)), sure)
