#!/usr/bin/env python3
"""Compares `spiffe-authz diff` and `who` with the solver z3 on random documents.

    pip install z3-solver
    cargo build --release -p spiffe-authz-cli
    tests/solver/compare.py --pairs 200

The script translates both documents of a pair to formulas over strings, and asks z3 whether a request exists that the change grants or
revokes, and whether one exists that the old document allows. The command must give the same answers. The translation shares no code
with the command: callers are a trust domain, a namespace and a service account, and values are equations, prefixes and suffixes.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import z3

TRUST_DOMAIN = "a"
FEDERATED = ["b", "bb"]

PRINCIPALS = ["*", "a/ns/n/sa/s", "a/*", "a/ns/n/*", "*/sa/s", "b/ns/m/sa/s", "b*", "*s"]
NAMESPACES = ["n", "m", "*", "n*", "*m", "n*m"]
ACCOUNTS = ["n/s", "m/s", "n/t"]
TRUST_DOMAINS = ["a", "b", "*", "b*", "*b"]
METHODS = ["GET", "PUT", "G*", "*T", "*"]
PATHS = ["/a", "/a/*", "/a*", "*b", "*/b", "*", "/a/{*}", "/{*}/b", "/a/{**}", "/{**}/b", "/"]
HOSTS = ["h", "*.h", "h*", "*", "*:80"]
PORTS = ["80", "443"]
LINES = ["a", "a*", "*b", "*"]


def characters(text, *ranges):
    return z3.Union(*[z3.Re(character) for character in text], *[z3.Range(first, last) for first, last in ranges])


SEGMENT = characters(".-_", ("a", "z"), ("A", "Z"), ("0", "9"))
TRUST_DOMAIN_CHARACTER = characters(".-_", ("a", "z"), ("0", "9"))
TOKEN = characters("!#$%&'*+-.^_`|~", ("a", "z"), ("A", "Z"), ("0", "9"))
# Visible ASCII without `#`, `;` and `?`.
PATH = characters("", ("!", '"'), ("$", ":"), ("<", ">"), ("@", "~"))
# The characters of the segments of a path template (RFC 3986 section 3.3), and `*`.
TEMPLATE = characters("-._~%!$&'()+,;:@=*", ("a", "z"), ("A", "Z"), ("0", "9"))
# Visible ASCII without uppercase letters, `/` and `@`. Trailing dots are excluded below.
HOST = characters("", ("!", "."), ("0", "?"), ("[", "~"))
LINE = characters("", ("!", "+"), ("-", "~"))


class Request:
    """The attributes of a request as variables."""

    def __init__(self):
        self.trust_domain, self.namespace, self.account = z3.Strings("trust_domain namespace account")
        self.method, self.path, self.host, self.line = z3.Strings("method path host line")
        self.has_host, self.has_line, self.has_port = z3.Bools("has_host has_line has_port")
        self.port = z3.Int("port")
        self.principal = z3.Concat(self.trust_domain, "/ns/", self.namespace, "/sa/", self.account)

    def constraints(self):
        """The grammar of the attributes, and the callers that the document accepts."""
        segment = lambda value: z3.And(z3.InRe(value, z3.Plus(SEGMENT)), value != ".", value != "..")
        return [
            z3.Or([self.trust_domain == name for name in [TRUST_DOMAIN, *FEDERATED]]),
            segment(self.namespace),
            segment(self.account),
            z3.InRe(self.method, z3.Plus(TOKEN)),
            z3.InRe(self.path, z3.Concat(z3.Re("/"), z3.Star(PATH))),
            z3.InRe(self.host, z3.Plus(HOST)),
            z3.Not(z3.SuffixOf(".", self.host)),
            z3.Not(z3.PrefixOf(".", self.host)),
            z3.Not(z3.Contains(self.host, ".:")),
            z3.InRe(self.line, z3.Star(LINE)),
            self.port >= 1,
            self.port <= 65535,
        ]


def text(value, variable):
    """A value with `*` at one end."""
    if value == "*":
        return z3.BoolVal(True)
    if value.startswith("*"):
        return z3.SuffixOf(value[1:], variable)
    if value.endswith("*"):
        return z3.PrefixOf(value[:-1], variable)
    return variable == value


def glob(value, variable):
    """A value in which every `*` is any number of characters."""
    parts = [z3.Re(part) for part in value.split("*")]
    expression = parts[0]
    for part in parts[1:]:
        expression = z3.Concat(expression, z3.Star(SEGMENT), part)
    return z3.InRe(variable, expression)


def path(value, variable):
    if "{" not in value:
        return text(value, variable)
    expression = z3.Re("")
    for segment in value.split("/")[1:]:
        part = {"{*}": z3.Plus(TEMPLATE), "{**}": z3.Star(z3.Union(TEMPLATE, z3.Re("/")))}.get(segment, z3.Re(segment))
        expression = z3.Concat(expression, z3.Re("/"), part)
    return z3.InRe(variable, expression)


def values(positive, negative, matches):
    """The values of a field and of its negated form. `matches` gets whether a value is negated."""
    some = z3.Or([matches(value, False) for value in positive]) if positive else z3.BoolVal(True)
    return z3.And(some, *[z3.Not(matches(value, True)) for value in negative])


def fields(selector, request, action, names_trust_domain=False):
    """The conjunction of the fields of a source or an operation."""
    names_trust_domain = names_trust_domain or "trustDomains" in selector
    local = request.trust_domain == TRUST_DOMAIN

    def scoped(formula, negated):
        # Without a trust domain, the reading that grants less applies.
        is_local = not names_trust_domain and (action == "ALLOW") != negated
        return z3.And(local, formula) if is_local else formula

    def account(value, negated):
        namespace, name = value.split("/")
        return scoped(z3.And(request.namespace == namespace, request.account == name), negated)

    matchers = {
        "principals": lambda value, _: text(value, request.principal),
        "namespaces": lambda value, negated: scoped(glob(value, request.namespace), negated),
        "serviceAccounts": account,
        "trustDomains": lambda value, _: text(value, request.trust_domain),
        "methods": lambda value, _: text(value, request.method),
        "paths": lambda value, _: path(value, request.path),
        "hosts": lambda value, _: z3.And(request.has_host, text(value, request.host)),
        "ports": lambda value, _: z3.And(request.has_port, request.port == int(value)),
    }
    parts = []
    for name, matches in matchers.items():
        negated = "not" + name[0].upper() + name[1:]
        if name in selector or negated in selector:
            parts.append(values(selector.get(name, []), selector.get(negated, []), matches))
    return z3.And(parts) if parts else z3.BoolVal(True)


def rule(rule, request, action):
    some = lambda selectors: z3.Or(selectors) if selectors else z3.BoolVal(True)
    header = lambda value, _: z3.And(request.has_line, text(value, request.line))
    return z3.And(
        some([fields(source["source"], request, action) for source in rule.get("from", [])]),
        some([fields(operation["operation"], request, action) for operation in rule.get("to", [])]),
        *[values(one.get("values", []), one.get("notValues", []), header) for one in rule.get("when", [])],
    )


def allows(document, request):
    of = lambda action: [policy for policy in document["policies"] if policy["action"] == action]
    matched = lambda action: [rule(one, request, action) for policy in of(action) for one in policy["rules"]]
    allowed = z3.Or(matched("ALLOW")) if of("ALLOW") else z3.BoolVal(True)
    return z3.And(z3.Not(z3.Or(matched("DENY"))), allowed)


def some_of(rng, choices):
    return [rng.choice(choices) for _ in range(rng.randint(1, 2))]


def random_fields(rng, table):
    selected = {}
    for _ in range(rng.randint(1, 2)):
        name, choices = rng.choice(table)
        negated = "not" + name[0].upper() + name[1:]
        selected[negated if rng.random() < 0.25 else name] = some_of(rng, choices)
    return selected


def random_rule(rng):
    found = {}
    source = [("principals", PRINCIPALS), ("namespaces", NAMESPACES), ("trustDomains", TRUST_DOMAINS)]
    accounts = [("serviceAccounts", ACCOUNTS), ("trustDomains", TRUST_DOMAINS)]
    operation = [("methods", METHODS), ("paths", PATHS), ("paths", PATHS), ("hosts", HOSTS), ("ports", PORTS)]
    if sources := rng.randint(0, 2):
        tables = [accounts if rng.random() < 0.25 else source for _ in range(sources)]
        found["from"] = [{"source": random_fields(rng, table)} for table in tables]
    if operations := rng.randint(0, 2):
        found["to"] = [{"operation": random_fields(rng, operation)} for _ in range(operations)]
    if rng.random() < 0.3:
        name = "notValues" if rng.random() < 0.3 else "values"
        found["when"] = [{"key": "request.headers[x-a]", name: some_of(rng, LINES)}]
    return found


def random_policy(rng, number):
    action = rng.choice(["ALLOW", "ALLOW", "DENY"])
    rules = [random_rule(rng) for _ in range(rng.randint(1, 2))]
    return {"name": f"p{number}", "namespace": "n", "action": action, "rules": rules}


def random_pair(rng):
    policies = [random_policy(rng, number) for number in range(rng.randint(1, 4))]
    changed = json.loads(json.dumps(policies))
    position = rng.randrange(len(policies))
    kind = rng.randrange(3)
    if kind == 0:
        changed.pop(position)
    elif kind == 1:
        changed[position] = random_policy(rng, position)
    else:
        changed.append(random_policy(rng, len(policies)))
    document = lambda policies: {
        "trustDomain": TRUST_DOMAIN,
        "federatedTrustDomains": FEDERATED,
        "policies": policies,
    }
    return document(policies), document(changed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", default="target/release/spiffe-authz", help="the command")
    parser.add_argument("--pairs", type=int, default=100, help="the number of pairs of documents")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the first pair")
    parser.add_argument("--timeout", type=int, default=10, help="the seconds that z3 has for a question")
    options = parser.parse_args()
    z3.set_param("timeout", options.timeout * 1000)
    counts = {"yes": 0, "no": 0, "unknown": 0}
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, name) for name in ("old.json", "new.json")]
        for seed in range(options.seed, options.seed + options.pairs):
            pair = random_pair(random.Random(seed))
            for file, document in zip(files, pair):
                file.write_text(json.dumps(document))

            def ask(*arguments):
                run = [options.command, *arguments]
                return json.loads(subprocess.run(run, capture_output=True, text=True, check=False).stdout)

            kinds = {change["change"] for change in ask("diff", "--format", "json", *files)["changes"]}
            permissions = ask("who", "--format", "json", files[0])["permissions"]
            request = Request()
            old, new = (allows(document, request) for document in pair)
            questions = {
                "granted": (z3.And(new, z3.Not(old)), "granted" in kinds),
                "revoked": (z3.And(old, z3.Not(new)), "revoked" in kinds),
                "who": (old, bool(permissions)),
            }
            for name, (formula, answer) in questions.items():
                solver = z3.Solver()
                solver.add(*request.constraints(), formula)
                found = solver.check()
                if found == z3.unknown:
                    counts["unknown"] += 1
                elif (found == z3.sat) != answer:
                    print(f"seed {seed}: {name}: the command says {answer}, z3 says {found}", file=sys.stderr)
                    print(json.dumps(pair), file=sys.stderr)
                    if found == z3.sat:
                        print(solver.model(), file=sys.stderr)
                    return 1
                else:
                    counts["yes" if answer else "no"] += 1
    print(f"{sum(counts.values())} questions: {counts['yes']} yes, {counts['no']} no, {counts['unknown']} unknown to z3")
    return 0


if __name__ == "__main__":
    sys.exit(main())
