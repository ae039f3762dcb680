//! Chat templates: compiled, then rendered for conversations with and without tools.

use crate::{Outcome, Target};
use serde_json::json;
use tightrope_data::{ChatTemplate, Variables};

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!(
            "../../../data/tests/data/templates/",
            $name,
            ".jinja"
        ))
    };
}

/// One snippet per line, with a rule between them.
const SNIPPETS: &str = include_str!("../../../data/tests/data/snippets.txt");

pub(super) const TEMPLATE: Target = Target {
    name: "template",
    run,
    seeds: || {
        let whole = [
            template!("chatml_generation"),
            template!("gemma"),
            template!("llama3_1"),
            template!("mistral"),
            template!("qwen3"),
        ];
        let parts = SNIPPETS
            .split("\n----\n")
            .filter(|part| run(part.as_bytes()).is_ok());
        whole
            .into_iter()
            .chain(parts)
            .map(|text| text.into())
            .collect()
    },
    words: &[
        "{%",
        "%}",
        "{{",
        "}}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        "generation",
        "endgeneration",
        "macro",
        "endmacro",
        "call",
        "endcall",
        "filter",
        "endfilter",
        "set",
        "endset",
        "for",
        "recursive",
        "loop",
        "endfor",
        "if",
        "endif",
        "break",
        "continue",
        "namespace",
        "range",
        "raise_exception",
        "strftime_now",
        "tojson",
        "join",
        "replace",
        "messages",
        "tools",
        "caller",
        "self",
        "include",
        "import",
        "extends",
        "block",
        "raw",
        "endraw",
        "do",
        "9999999999",
        "*",
        "~",
        "|",
        "center",
        "ljust",
        "format",
        "indent",
        "batch",
        "slice",
        "repeat",
        "cycle",
        "dictsort",
        "selectattr",
    ],
};

fn run(bytes: &[u8]) -> Outcome {
    let source = std::str::from_utf8(bytes)?;
    // With the real clock, inputs would have another meaning on another day.
    let template = ChatTemplate::compile_at(source, Some(Default::default()))?;
    let conversation = [
        json!({"role": "user", "content": "Hello\n"}),
        json!({"role": "assistant", "content": "<think>x</think> Hi 한🙂"}),
    ];
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"a": [1, 2.5, null]}}}]);
    let variables: Variables = ["bos_token", "eos_token"]
        .map(|name| (name.to_owned(), json!("<s>")))
        .into_iter()
        .collect();
    for tools in [None, Some(&tools)] {
        let rendered = template.render(&conversation, tools, true, &variables)?;
        assert!(
            rendered
                .spans
                .iter()
                .all(|span| rendered.text.get(span.clone()).is_some())
        );
    }
    Ok(())
}
