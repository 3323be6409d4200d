#!/usr/bin/env python3
"""Lists the protocol's rule ids with the functions and tests that cite them: `just rules`.

    tools/rules.py            the table
    tools/rules.py --check    fails if an id in docs/rules-done.txt is cited by no test

A citation is an id such as T-3 in a comment, a docstring or a test's text, and belongs to the next
function after it, or to the one around it.
"""

import pathlib, re, sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
ID = re.compile(r"\b([A-Z]{1,2}-\d{1,2})\b")
FN = re.compile(r"^\s*(?:pub(?:\([a-z]+\))? )?(?:const |async |unsafe )*fn (\w+)|^def (\w+)")
KNOWN = "T V E M G L A C R D P S W".split()


def citations():
    """Yields (rule id, file, function, whether it is a test)."""
    files = [*ROOT.glob("crates/*/src/**/*.rs"), *ROOT.glob("crates/*/tests/**/*.rs"), *ROOT.glob("tests/**/*.py")]
    for path in sorted(files):
        name = str(path.relative_to(ROOT))
        in_tests = "/tests/" in name or name.startswith("tests/")
        function, pending, indent_is_test = path.stem, [], in_tests
        for line in path.read_text().splitlines():
            if "#[cfg(test)]" in line:
                indent_is_test = True
            found = [rule for rule in ID.findall(line) if rule.split("-")[0] in KNOWN]
            match = FN.match(line)
            comment = line.lstrip().startswith(("//", "#", '"""'))
            if match:
                function = match[1] or match[2]
                for rule in pending + found:
                    yield rule, name, function, indent_is_test
                pending = []
            elif comment and not line.startswith("    \"\"\"") and found and not indent_is_test:
                pending += found
            else:
                for rule in found:
                    yield rule, name, function, indent_is_test
                if comment and found:
                    pending += found
        for rule in pending:
            yield rule, name, path.stem, indent_is_test


def main():
    code, tests = {}, {}
    for rule, name, function, is_test in citations():
        (tests if is_test else code).setdefault(rule, set()).add(f"{name}: {function}")
    if "--check" in sys.argv:
        done = [line.split("#")[0].strip() for line in (ROOT / "docs/rules-done.txt").read_text().splitlines()]
        missing = [rule for rule in done if rule and rule not in tests]
        for rule in missing:
            print(f"{rule} is done and no test cites it", file=sys.stderr)
        sys.exit(1 if missing else 0)
    key = lambda rule: (rule.split("-")[0], int(rule.split("-")[1]))
    for rule in sorted(set(code) | set(tests), key=key):
        print(rule)
        for place in sorted(code.get(rule, ())):
            print(f"    {place}")
        for place in sorted(tests.get(rule, ())):
            print(f"    test  {place}")


if __name__ == "__main__":
    main()
