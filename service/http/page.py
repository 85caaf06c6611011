"""Show the document of the API as one page for people, which loads nothing from elsewhere and can try each operation.

The frame of the page is `page.html`, its style `page.css`, and its script `page.js`.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any

Part = Mapping[str, Any]
"""A part of the document, such as an operation or a schema."""

HOST = "127.0.0.1:8000"
"""Where the curl lines ask, until the script puts the place of the page there."""
KINDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "object": "object"}
LENGTHY = 10
"""A schema with more words than this is told without them."""
FRAME, STYLE, SCRIPT = (Path(__file__).with_suffix(f".{kind}").read_text("utf-8") for kind in ("html", "css", "js"))


def _hashed(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hashed(STYLE)}; script-src {_hashed(SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: run its own style and script, and ask the service that it came from."""


def render(document: Part) -> bytes:
    """Write the page of a document."""
    page = _Page(document)
    info, schemas = document["info"], document["components"]["schemas"]
    parts = {
        "about": (f"<p>{_marked(text)}</p>" for text in info["description"].split("\n\n")),
        "contents": page.contents(),
        "operations": page.operations(),
        "types": (page.kind(name, schema) for name, schema in schemas.items() if "properties" in schema),
        "refusals": page.refusals(),
    }
    told = {"title": escape(info["title"]), "version": escape(info["version"]), "style": STYLE, "script": SCRIPT}
    return Template(FRAME).substitute(told, **{name: "\n".join(lines) for name, lines in parts.items()}).encode()


class _Page:
    def __init__(self, document: Part) -> None:
        self._document = document
        paths, tags = document["paths"], document["tags"]
        every = [(path, method, each) for path in paths for method, each in paths[path].items()]
        self._of = {tag["name"]: [one for one in every if tag["name"] in one[2]["tags"]] for tag in tags}
        self._everywhere = set.intersection(*({*self._codes(each)} for *_, each in every))

    def _resolved(self, part: Part) -> Part:
        if "$ref" in part:
            _, kind, place, name = part["$ref"].split("/")
            return self._document[kind][place][name]  # type: ignore[no-any-return]
        return part

    def _codes(self, each: Part) -> Iterator[str]:
        """Give the codes that an operation may be refused with."""
        for response in each["responses"].values():
            content = self._resolved(response).get("content", {})
            yield from content.get("application/problem+json", {}).get("examples", ())

    def contents(self) -> Iterator[str]:
        for tag, operations in self._of.items():
            short = ((each["operationId"], each["summary"].rstrip(".").partition(";")[0]) for *_, each in operations)
            items = (f'<li><a href="#{name}">{escape(text.partition(":")[0])}</a></li>' for name, text in short)
            yield f"<b>{tag}</b><ul>{''.join(items)}</ul>"

    def operations(self) -> Iterator[str]:
        for tag in self._document["tags"]:
            yield f"<h2>{tag['name']}</h2><p>{_marked(tag['description'])}</p>"
            for path, method, each in self._of[tag["name"]]:
                name = each["operationId"]
                yield f'<article aria-labelledby="{name}"><h3 id="{name}">'
                yield f'<span class="method {method}">{method.upper()}</span>{escape(path)}</h3>'
                yield f"<p>{_marked(each['summary'])}</p>"
                yield f'<pre class="whole"><code class="curl">{escape(_curl(path, method, each))}</code></pre>'
                yield "<details><summary>Request, answers and refusals</summary>"
                yield from self._request(each)
                yield from self._answers(each)
                yield f"</details>{''.join(_form(path, method, each))}</article>"

    def _request(self, each: Part) -> Iterator[str]:
        if scope := each.get("x-required-scope"):
            yield f'<p class="soft">Where the service asks for tokens: one with the scope <code>{scope}</code>.</p>'
        if parameters := each.get("parameters"):
            rows = (
                f"<dt><code>{one['name']}</code></dt>"
                f"<dd>{_rule(one['schema'])}{_marked('. ' + one['description']) if 'description' in one else ''}</dd>"
                for one in parameters
            )
            yield f"<h4>Parameters</h4><dl>{''.join(rows)}</dl>"
        if body := each.get("requestBody"):
            yield f'<h4>Body</h4><p class="soft">{_marked(body["description"])}</p>'
            yield from _contents(body["content"])

    def _answers(self, each: Part) -> Iterator[str]:
        yield "<h4>Answers</h4>"
        for status, response in each["responses"].items():
            if "$ref" not in response:
                yield f"<p>{status} {escape(response['description'])}</p>"
                for name, header in response.get("headers", {}).items():
                    yield f'<p class="soft"><code>{name}</code>: {_marked(self._resolved(header)["description"])}</p>'
                yield from _contents(response.get("content", {}))
        yield "<h4>Refusals</h4><ul>"
        for code in self._codes(each):
            if code not in self._everywhere:
                status, title = self._problem(code)
                yield f'<li>{status} <a href="#{code}"><code>{code}</code></a>: {title}</li>'
        yield '<li>and <a href="#refusals">those of every operation</a></li></ul>'

    def _problem(self, code: str) -> tuple[int, str]:
        told = self._document["components"]["examples"][code]["value"]
        return told["status"], escape(told["title"])

    def kind(self, name: str, schema: Part) -> str:
        """Tell the members of a body or a record."""
        wanted = schema.get("required", ()) if "additionalProperties" in schema else ()  # A record is always whole.
        rows = (
            f"<dt><code>{member}</code></dt><dd>{_rule(rule)}{', required' if member in wanted else ''}</dd>"
            for member, rule in schema["properties"].items()
        )
        choices = (each.get("oneOf", each.get("anyOf")) for each in schema.get("allOf", ()))
        either = (" or ".join(" and ".join(one["required"]) for one in choice) for choice in choices)
        required = "".join(f"<p>Required: {each}.</p>" for each in either)
        return f'<h3 id="{name}">{name}</h3><p>{_marked(schema["description"])}</p><dl>{"".join(rows)}</dl>{required}'

    def refusals(self) -> Iterator[str]:
        links = (f'<a href="#{code}"><code>{code}</code></a>' for code in sorted(self._everywhere))
        yield f"<p>Every operation may be refused with {', '.join(links)}.</p><dl>"
        for code in self._document["components"]["examples"]:
            status, title = self._problem(code)
            link = f'<a href="problems/{code}" aria-label="What to do: {code}">What to do</a>'
            yield f'<dt id="{code}"><code>{code}</code></dt><dd>{status}: {title}. {link}</dd>'
        yield "</dl>"


def _form(path: str, method: str, each: Part) -> Iterator[str]:
    """Give the form that tries an operation."""
    kind, content = next(iter(each.get("requestBody", {"content": {"": None}})["content"].items()))
    told = f'data-method="{method.upper()}" data-path="{path}" data-type="{kind}"'
    yield f"<details><summary>Try it</summary><form {told}>"
    for one in each.get("parameters", []):
        value = f'value="{escape(str(one["example"]))}" required' if one["required"] else ""
        yield f'<label>{one["name"]}<input name="{one["name"]}" data-in="{one["in"]}" {value}></label>'
    if content:
        text = content["example"] if isinstance(content["example"], str) else _json(content["example"])
        yield f'<label>Body<textarea rows="{1 + text.count(chr(10))}">{escape(text)}</textarea></label>'
    yield f'<button>Send {method.upper()}</button><pre class="whole"><output>The answer comes here.</output></pre>'
    yield "</form></details>"


def _curl(path: str, method: str, each: Part) -> str:
    for one in each.get("parameters", []):
        path = path.replace(f"{{{one['name']}}}", str(one.get("example")))
    content = next(iter(each.get("requestBody", {"content": {}})["content"].values()), None)
    verb = "" if method == ("post" if content else "get") else f"-X {method.upper()} "
    if "requestBody" in each and "text/csv" in each["requestBody"]["content"]:
        return f"curl -i '{HOST}{path}?file_name=students.csv' -H 'content-type: text/csv' --data-binary @students.csv"
    if "application/zip" in each["responses"].get("200", {}).get("content", ()):
        return f"curl -OJ {HOST}{path}"
    body = f" --json '{json.dumps(content['example'], ensure_ascii=False)}'" if content else ""
    return f"curl -i {verb}{HOST}{path}{body}"


def _contents(contents: Part) -> Iterator[str]:
    for kind, content in contents.items():
        told = content["schema"].get("description", "")
        yield f'<p class="soft">{kind}: {_rule(content["schema"])}{_marked(told and f". {told}")}</p>'
        if (example := content.get("example")) is not None:
            text = example.rstrip() if isinstance(example, str) else _json(example)
            yield f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _rule(schema: Part) -> str:
    """Say a schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_rule(each) if each.get("type") != "null" else "null" for each in schema["anyOf"])
    if schema["type"] == "array":
        return f"array of {_rule(schema['items'])}"
    kind, *null = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    words = schema.get("enum", ())
    told = [f"one of {', '.join(words)}" if 0 < len(words) <= LENGTHY else KINDS[kind]]
    told += [schema["format"]] if "format" in schema else []
    for least, most, unit in ("minLength", "maxLength", " characters"), ("minimum", "maximum", ""):
        told += [f"{schema[least]} to {schema[most]}{unit}"] if most in schema else []
    told += ["or null"] if null else []
    told += [f"by default {_json(schema['default'])}"] if "default" in schema else []
    return escape(", ".join(told))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _marked(text: str) -> str:
    """Write a text with `code` in it."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
