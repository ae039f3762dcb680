"""Writes renders.json: what Transformers renders of the templates here. Run once with Transformers 5."""
import datetime, itertools, json, pathlib
import jinja2
from transformers.utils import chat_template_utils as utils

HERE = pathlib.Path(__file__).parent

class Now(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 9, 8, 5, 7)

utils.datetime = Now
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather in a city, e.g. \"서울\" <now> & later — it's °C\\°F\n",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "enum": ["서울", "Zürich", "\U0001F600"]},
            "days": {"type": "integer", "default": 3, "minimum": -1, "maximum": 12345678901234567890},
            "scale": {"type": "number", "default": 1.0, "examples": [0.1, 1e-7, 1e16, 1.5e300, -2.5, 100000.0]},
            "detail": {"type": ["boolean", "null"], "default": None, "const": True, "if": False}},
            "required": ["city"], "empty": {}, "none": []}}},
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}, "return": {"type": "number"}}},
]
U, A, S = (lambda r: lambda c, **k: {"role": r, "content": c, **k})("user"), (lambda c, **k: {"role": "assistant", "content": c, **k}), (lambda c: {"role": "system", "content": c})
CALL = {"type": "function", "id": "abcdef123", "function": {"name": "get_weather", "arguments": {"city": "서울 \"x\"", "days": 2, "scale": 1.0, "detail": None, "n": [1, 2.5, True, {"a'b": "<&>"}]}}}
CONVERSATIONS = {
    "plain": [U("Hi"), A("Hello!")],
    "system": [S("Be brief."), U("Hi"), A("Hello!"), U("And now?"), A("Bye.")],
    "unicode": [S("한국어로 답하세요. \"따옴표\" \\ 역슬래시"), U("안녕 🙂 — 'quotes' \"double\" \\n {{ not jinja }} {% raw %}\ttab"), A("네!\u00a0\u200b👩‍👩‍👧 é e\u0301\n\n끝")],
    "white": [U("  \n padded \t "), A("\n\n  answer  \n")],
    "thinking": [U("1+1?"), A("<think>\nadd\n</think>\n\n2"), U("2+2?"), A("<think>\ntwo and two\n</think>\n\n4")],
    "reasoning": [U("q"), A("a", reasoning_content="why\nnot"), U("q2"), A("a2", thinking="because")],
    "tools": [S("Use tools."), U("서울 날씨?"), A(None, tool_calls=[CALL]), {"role": "tool", "content": "{\"t\": 21.5, \"ok\": true}", "name": "get_weather", "tool_call_id": "abcdef123"}, A("21.5 °C")],
    "two_results": [U("both"), A("calling", tool_calls=[CALL]), {"role": "tool", "content": "1", "tool_call_id": "abcdef123"}, {"role": "tool", "content": "2", "tool_call_id": "abcdef123"}, A("done"), U("thanks"), A("welcome")],
    "two_calls": [U("x"), A("", tool_calls=[CALL, {**CALL, "id": "abcdef124"}]), {"role": "tool", "content": "1"}, A("y")],
    "parts": [U([{"type": "text", "text": " look "}, {"type": "image"}]), A("nice")],
    "no_answer": [U("Hi")],
    "wrong_order": [A("first"), U("second")],
    "empty": [U(""), A("")],
}

def render(source, messages, tools, prompt, variables):
    try:
        messages = utils._normalize_chat_messages(messages)  # as apply_chat_template does
        texts, spans = utils.render_jinja_template([messages], tools=tools, chat_template=source,
            add_generation_prompt=prompt, return_assistant_tokens_mask="generation %}" in source, **variables)
    except Exception as error:
        return {"error": str(error) if type(error) is jinja2.exceptions.TemplateError else True}
    size = lambda end: len(texts[0][:end].encode())
    return {"text": texts[0], "spans": [[size(a), size(b)] for a, b in spans[0]] if spans else []}

renders = []
for path in sorted((HERE / "templates").glob("*.jinja")):
    source = path.read_text()
    for (name, messages), prompt, with_tools in itertools.product(CONVERSATIONS.items(), (False, True), (False, True)):
        if with_tools and path.stem not in ("qwen3", "llama3_1", "mistral"):
            continue
        for extra in ({}, {"enable_thinking": False}) if path.stem == "qwen3" and prompt else ({},):
            tools = TOOLS if with_tools else None
            renders.append({"template": path.stem, "conversation": name, "tools": with_tools, "prompt": prompt, "variables": {**SPECIAL, **extra},
                **render(source, messages, tools, prompt, {**SPECIAL, **extra})})

DATA = {"none": None, "yes": True, "no": False, "i": -7, "big": 18446744073709551615, "f": 1.0, "floats": [0.1, 1e16, 1e15, 1e-4, 1e-5, 123456789.125, 1e22, 5e-324, 1.7976931348623157e308, -0.0, 2.5],
    "s": "  Ab ß é 한국 🙂 'q' \"d\" \\ \n\ttail\u00a0", "words": "one two  three\nfour", "csv": "a,b,,c", "l": [3, 1, 2], "mixed": [1, 2.0, "it's", "say \"hi\"", "both ' \"", None, True, ["x\n"], {"k": "v"}],
    "d": {"b": 1, "a": {"z": [1.5, None]}, "한": "글"}, "html": "<a href='x'>&amp;</a>", "e": "", "el": [], "ed": {}, "shadow": {"items": {"type": "string"}, "keys": [1], "get": "g", "pop": 1, "k": {"values": 2}}, "bell": "a\u0007\u0008\u000c\u001b\u007f\u2028"}
SNIPPETS = (HERE / "snippets.txt").read_text().split("\n----\n")
snippets = [{"source": s, **render(s, [], None, False, DATA)} for s in SNIPPETS]
out = {"tools": TOOLS, "conversations": CONVERSATIONS, "renders": renders, "data": DATA, "snippets": snippets}
(HERE / "renders.json").write_text(json.dumps(out, ensure_ascii=False, indent=0) + "\n")
print(len(renders), "renders,", sum("error" in r for r in renders), "refusals;", len(snippets), "snippets,", [s["source"] for s in snippets if "error" in s])
