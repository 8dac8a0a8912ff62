"""Every method by part and name, those of other installed packages included.

>>> get("allocator", "neyman").citation.arxiv
'2605.08441'
>>> make("allocator", "uniform", units=4).allocate.__name__
'allocate'
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from types import SimpleNamespace, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.method import ITSELF, LATER, PARTS, READ, SLOTS, SUMS, TAKES, Method, is_sum
from budgeteer.core.methods import METHODS
from budgeteer.core.option import REQUIRED, options_declared
from budgeteer.core.spec import parse

GROUP = "budgeteer.methods"
"""Entry point group of methods outside this package; each entry point loads to a :class:`Method`."""
_NOUNS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "none"}


class Broken(NamedTuple):
    """An entry point of another package that gives no method."""

    entry: str
    error: InvalidInput
    """Says why, and which package to mend or to remove."""


def methods() -> tuple[Method, ...]:
    """All methods: those of this package, then those of other installed packages, which may not take a name of ours.
    Entry points that give no method are left out; :func:`broken` has them."""
    return _survey()[0]


def broken() -> tuple[Broken, ...]:
    """The entry points of other packages that give no method."""
    return _survey()[1]


def _survey() -> tuple[tuple[Method, ...], tuple[Broken, ...]]:
    from importlib import metadata  # slow to import, and most callers only want METHODS

    known, faults = {(method.part, method.name): method for method in METHODS}, []
    folders = tuple((folder, _changed(folder or ".")) for folder in sys.path)
    for entry in _entries(metadata.entry_points, folders):
        try:
            method = _declared(entry)
            if (method.part, method.name) in known:
                raise InvalidInput(
                    f"{_place(entry)} registers the {method.part} {method.name!r} a second time; choose another name"
                )
        except InvalidInput as error:
            faults.append(Broken(entry.name, error))
        else:
            known[method.part, method.name] = method
    return tuple(known.values()), tuple(faults)


@lru_cache(4)
def _entries(entry_points: Callable[..., Iterable[Any]], folders: tuple[tuple[str, int], ...]) -> tuple[Any, ...]:
    """The entry points of other packages, read anew when ``sys.path`` or a folder of it changes: with many packages
    installed a reading takes 20 ms, and one command looks many names up."""
    return tuple(entry_points(group=GROUP))


def _changed(folder: str) -> int:
    """When a folder got its newest entry, in nanoseconds; 0 where it cannot be looked at."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def of(part: str) -> dict[str, Method]:
    """The methods of a part, by name."""
    return {method.name: method for method in methods() if method.part == part}


def get(part: str, name: str) -> Method:
    """The method of this part and name.

    Raises:
        UnknownName: no method has it; the message lists the nearest names.
        InvalidInput: no method has it, and another package is broken, which may be the one that has it.
    """
    for method in METHODS:
        if (method.part, method.name) == (part, name):
            return method
    every, faults = _survey()
    known = {method.name: method for method in every if method.part == part}
    if name in known:
        return known[name]
    unknown = UnknownName(part, name, known)
    if faults:
        raise InvalidInput(f"{unknown}; {'; '.join(str(fault.error) for fault in faults)}") from faults[0].error
    raise unknown


def load(method: Method) -> Any:
    """Import a method's module and return what its path names: a factory, or the method itself."""
    return resolve(method.path)


def made(method: Method, **arguments: Any) -> Any:
    """The method: what its factory makes of the arguments, or, where the path names the method itself, that."""
    loaded = load(method)
    if method.part not in ITSELF:
        return loaded(**arguments)
    return partial(loaded, **arguments) if arguments else loaded


def make(part: str, name: str, **options: Any) -> Any:
    """The method of this part and name, made with these options.

    Raises:
        UnknownName: no method has this part and name, or it has no such option.
        InvalidInput: an option has a value that the method does not take, or one that it needs is missing.
    """
    method = get(part, name)
    return _made(method, arguments_of(method, options))


def part_of(part: str, given: Any) -> Any:
    """The method itself, or, where a text is given, the registered one of that name, with the options that follow it.

    >>> part_of("scorer", "self-evaluation").charged
    True
    >>> part_of("steer", "answered:every=4").every
    4

    Raises:
        UnknownName: no method of this part has the name, or it has no such option.
        InvalidInput: the method cannot be made without arguments, or of these options.
    """
    if not isinstance(given, str):
        return given
    if is_sum(part, given):
        return resolve(SUMS[part])(given)
    spec = parse(given, part)
    method = get(part, spec.name)
    if missing := _missing(method, spec.values):
        raise InvalidInput(
            f"{part} {given!r} cannot be chosen by its name alone, since it needs {' and '.join(missing)}; write "
            f"{spec.name}:{missing[0]}=..., {_hint(missing[0])}, or make it in Python and pass it"
        )
    return _made(method, arguments_of(method, spec.values))


def arguments_of(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a command line as arguments of a method; names of parts (:data:`TAKES`) become the parts.

    Raises:
        UnknownName: the method has no such option; the message lists the nearest.
        InvalidInput: a value that the option does not take, or an option is missing that the method needs.
    """
    settable, hints = options_of(method), _hints(load(method))
    given = dict(options)
    for key, value in options.items():
        if key not in settable:
            if any(parameter.kind is parameter.VAR_KEYWORD for parameter in settable.values()):
                continue
            if not settable and method.part not in SLOTS:
                raise InvalidInput(
                    f"{method.name}:{key}={value} is not possible: {method.name} has no options{_others(method, key)}"
                )
            raise UnknownName(f"option of {method.name}", key, [*settable, *SLOTS.get(method.part, ())])
        annotation = str(settable[key].annotation)
        part = TAKES.get(key, "strategy" if annotation.startswith("Strategy") else None)
        if part is not None and isinstance(value, str):
            given[key] = part_of(part, value)
        elif key in READ and isinstance(value, int | float | str):
            given[key] = resolve(READ[key].path)(method.name, str(value))
        elif not _takes(settable[key], hints.get(key), value):
            wanted, meaning = _wanted(settable[key], hints.get(key)), meaning_of(method, key)
            said = f"{wanted} ({meaning})" if meaning else wanted
            if wanted == "a text" and (value is None or isinstance(value, bool)):  # words of a command line
                value = str(value).lower()
                said += f'; as a text, write {key}="{value}" with its quotes'
            raise InvalidInput(f"{method.name}:{key}={value} is not possible: {key} is {said}")
    for key in _missing(method, options):
        raise InvalidInput(f"{method.name} needs {key}; give {method.name}:{key}=, {_hint(key)}")
    return given


def options_of(method: Method) -> dict[str, inspect.Parameter]:
    """The parameters that a command line may set: without those that are given when the method runs."""
    parameters = inspect.signature(load(method)).parameters
    if method.part in ITSELF:
        return {name: parameter for name, parameter in parameters.items() if parameter.default is not parameter.empty}
    return {name: parameter for name, parameter in parameters.items() if name not in LATER.get(method.part, ())}


def meaning_of(method: Method, option: str) -> str:
    """What an option means and its range, from the docstring's ``Args``: their first sentence, "" where there is none.

    >>> meaning_of(get("allocator", "variance"), "min_units")
    'least units an item, >= 1'
    """
    _, _, described = (inspect.getdoc(load(method)) or "").partition("Args:\n")
    entry = re.search(rf"^    (?:\w+, )*{option}(?:, \w+)*: (.*(?:\n {{6,}}.*)*)", described, re.MULTILINE)
    if entry is None or entry[1].startswith("as in "):  # that of another function, which a message cannot show
        return ""
    return " ".join(entry[1].replace("``", "").split()).partition(". ")[0].rstrip(".")


def explained(method: Method) -> dict[str, Any]:
    """What a method's code says of it, as JSON data.

    ``about``: the first paragraph of the docstring, and when it helps; ``columns``: those of Items that it reads
    by name, as far as the names stand in the factory, or of rollouts, for a reward; ``options``: name, takes, default,
    required, meaning of each, as the factory declares them (``core/option.py``), or else from its parameters and
    docstring.

    Raises:
        MissingExtra: the method needs what is not installed.

    >>> about = explained(get("allocator", "neyman"))
    >>> about["columns"], [option["name"] for option in about["options"]]
    (['std', 'cost'], ['min_units', 'max_units', 'published'])
    """
    factory = load(method)
    text = inspect.getdoc(factory) or ""
    first = text.partition("\n\n")[0]
    helps = re.findall(r"^(?:When it helps|When not|Helps )(?:.+\n?)+", text, re.MULTILINE)
    about = "\n\n".join([first, *(part.strip() for part in helps if part.strip() not in first)])
    try:
        code = inspect.getsource(factory)
    except (OSError, TypeError):  # made by something else than a file
        code = ""
    hints = _hints(factory)
    options = [
        {
            "name": name,
            "takes": f"name: {TAKES[name]}" if name in TAKES else _wanted(parameter, hints.get(name)),
            "default": None if parameter.default is parameter.empty else _plain(parameter.default),
            "required": parameter.default is parameter.empty,
            "meaning": meaning_of(method, name),
        }
        for name, parameter in options_of(method).items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if declared := options_declared(factory):
        options = [
            {
                "name": option.name,
                "takes": option.takes,
                "meaning": option.meaning,
                "default": None if option.default is REQUIRED else _plain(option.default),
                "required": option.default is REQUIRED,
            }
            for option in declared
        ]
    read = re.findall(r"\bitems\.(?:column\(\s*[\"'])?(cost|std|pass_rate|visits|drawn|right|(?<=[\"'])\w+)\b", code)
    read += ["menu"] if "menu" in method.traits else []
    if method.part == "reward":
        read = re.findall(r"\brows\.(correct|length|group|max_tokens|status)\b", code)
        read += made(method, **dict(method.arguments) if isinstance(method.arguments, Mapping) else {}).needs
    return {"about": about, "columns": list(dict.fromkeys(read)), "options": options}


def _plain(value: Any) -> Any:
    """A default as JSON has it; what is no finite number, text or truth value as a text."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and abs(value) < float("inf")):
        return value
    if type(value) is tuple and all(isinstance(entry, int | float) for entry in value):
        return list(value)
    return getattr(value, "__name__", str(value))


def resolve(path: str) -> Any:
    """What ``"package.module:name"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _made(method: Method, arguments: Mapping[str, Any]) -> Any:
    try:
        return made(method, **arguments)
    except TypeError as error:
        raise InvalidInput(f"{method.part} {method.name!r} cannot be made with these options: {error}") from error


def _missing(method: Method, given: Mapping[str, Any]) -> list[str]:
    """Options without a default that are not given."""
    ordinary = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, parameter in options_of(method).items()
        if parameter.kind in ordinary and parameter.default is parameter.empty and name not in given
    ]


def _hint(option: str) -> str:
    """What is to be given for an option without a default."""
    names = of(TAKES.get(option, ""))
    return f"one of {', '.join(names)}" if names else READ[option].takes if option in READ else "a value"


def _others(method: Method, option: str) -> str:
    """Which methods of the same part have this option, as the end of a message."""
    names = []
    for other in of(method.part).values():
        try:
            if option in options_of(other):
                names.append(other.name)
        except ImportError:  # an extra that is not installed
            continue
    return f"; {option} is an option of {' and '.join(names)}" if names else ""


def _hints(factory: Any) -> dict[str, Any]:
    """Types of a factory's parameters; without those that cannot be evaluated, such as those for type checkers only."""
    function = factory.__init__ if inspect.isclass(factory) else factory
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        try:
            hints |= get_type_hints(SimpleNamespace(__annotations__={name: annotation}), function.__globals__)
        except (NameError, TypeError, AttributeError):
            continue
    return hints


def _takes(parameter: inspect.Parameter, hint: Any, value: Any) -> bool:
    """Whether an option takes a number, a word, a truth value or none; other values are for the method to look at."""
    if value is not None and not isinstance(value, bool | int | float | str):
        return True
    if isinstance(parameter.default, bool):  # without a type, too: any text would count as true
        return isinstance(value, bool)
    types = _kinds(hint)
    if hint is None or Any in types or object in types:
        return True
    wider = (int, float) if type(value) is int else (type(value),)
    return value in _words(hint) or any(kind in types for kind in wider)


def _words(hint: Any) -> list[Any]:
    """The values of a type's literals."""
    return [word for kind in _kinds(hint) if get_origin(kind) is Literal for word in get_args(kind)]


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _wanted(parameter: inspect.Parameter, hint: Any) -> str:
    """What an option takes, in words; the annotation where there are none."""
    if isinstance(parameter.default, bool):
        return "true or false"
    if parameter.name in READ:
        return READ[parameter.name].takes
    if parameter.annotation is parameter.empty:
        return "any value"
    said = [*_words(hint), *(_NOUNS[kind] for kind in _kinds(hint) if kind in _NOUNS)]
    if said in ([], ["none"]):  # nothing that a command line can write, but the object itself
        return str(parameter.annotation)
    return " or ".join(map(str, said))


def _declared(entry: Any) -> Method:
    """The method of another package's entry point, looked at."""
    try:
        method = entry.load()
        factory = load(method) if isinstance(method, Method) else None
    except Exception as error:  # whatever another package's import raises
        raise InvalidInput(
            f"{_place(entry)} cannot be loaded ({type(error).__name__}: {error}); {_remedy(entry)}"
        ) from error
    if not isinstance(method, Method):
        raise InvalidInput(f"{_place(entry)} loads to {method!r}, and not to a Method; {_remedy(entry)}")
    if method.part not in PARTS or not callable(factory):
        raise InvalidInput(
            f"{_place(entry)} registers {method.name!r} as {method.part!r} at {method.path!r}; the part "
            f"is one of {', '.join(sorted(PARTS))}, and the path names a function as package.module:function"
        )
    return method


def _place(entry: Any) -> str:
    """An entry point and the package that declares it, for errors."""
    package = f" of package {entry.dist.name!r}" if entry.dist else ""
    return f"entry point {entry.name!r}{package} (group {GROUP})"


def _remedy(entry: Any) -> str:
    package = entry.dist.name if entry.dist else "the package that declares it"
    return f"mend {package}, or remove it" + (f": pip uninstall {package}" if entry.dist else "")
