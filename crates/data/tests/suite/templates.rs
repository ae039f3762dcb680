//! Renders equal those of Transformers, byte for byte (`tests/data/renders.py` made these).

use chrono::NaiveDate;
use serde_json::{Map, Value};
use tightrope_data::ChatTemplate;

fn golden() -> Value {
    serde_json::from_str(include_str!("../data/renders.json")).unwrap()
}

fn compile(source: &str) -> ChatTemplate {
    let day = NaiveDate::from_ymd_opt(2026, 3, 9).unwrap();
    ChatTemplate::compile_at(source, day.and_hms_opt(8, 5, 7)).unwrap()
}

/// Difference from the expected render, if there is one.
fn difference(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&Value>,
    prompt: bool,
    variables: &Map<String, Value>,
    expected: &Value,
) -> Option<String> {
    match (
        template.render(messages, tools, prompt, variables),
        &expected["error"],
    ) {
        (Ok(rendered), Value::Null) => {
            let spans: Vec<Vec<usize>> = rendered
                .spans
                .iter()
                .map(|s| vec![s.start, s.end])
                .collect();
            let spans = serde_json::to_value(spans).unwrap();
            (expected["text"] != *rendered.text || expected["spans"] != spans)
                .then(|| format!("{:?} {spans}", rendered.text))
        }
        (Err(error), Value::String(message)) => {
            (error.message != *message).then_some(error.message)
        }
        (Err(_), Value::Bool(true)) => None,
        (other, _) => Some(format!("{other:?}")),
    }
}

fn report(differences: Vec<String>) {
    assert!(
        differences.is_empty(),
        "{} renders differ:\n{}",
        differences.len(),
        differences.join("\n\n")
    );
}

#[test]
fn conversations_render_as_in_transformers() {
    let golden = golden();
    let renders = golden["renders"].as_array().unwrap();
    assert!(renders.len() > 300);
    let mut differences = Vec::new();
    for case in renders {
        let name = case["template"].as_str().unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");
        let source = std::fs::read_to_string(format!("{folder}/{name}.jinja")).unwrap();
        let conversation = &golden["conversations"][case["conversation"].as_str().unwrap()];
        let tools = (case["tools"] == true).then_some(&golden["tools"]);
        if let Some(got) = difference(
            &compile(&source),
            conversation.as_array().unwrap(),
            tools,
            case["prompt"] == true,
            case["variables"].as_object().unwrap(),
            case,
        ) {
            differences.push(format!("{case}\n  {got}"));
        }
    }
    report(differences);
}

#[test]
fn expressions_evaluate_as_in_python() {
    let golden = golden();
    let snippets = golden["snippets"].as_array().unwrap();
    assert!(snippets.len() > 70);
    let mut differences = Vec::new();
    for case in snippets {
        let source = case["source"].as_str().unwrap();
        let day = NaiveDate::from_ymd_opt(2026, 3, 9).unwrap();
        let got = match ChatTemplate::compile_at(source, day.and_hms_opt(8, 5, 7)) {
            Ok(template) => {
                let data = golden["data"].as_object().unwrap();
                difference(&template, &[], None, false, data, case)
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(got) = got {
            differences.push(format!(
                "{source}\n  expected {}{} {}\n  got      {got}",
                case["text"], case["error"], case["spans"]
            ));
        }
    }
    report(differences);
}

/// jinja2 gives this text for the same source.
#[test]
fn lines_of_a_template_end_alike() {
    let source = "a\r\n{{ 'x\r\ny' }}\rb{# \r\n #}\r\n{% if true %}\r\nc{% endif %}\r\n";
    let template = ChatTemplate::compile(source).unwrap();
    let rendered = template.render(&[], None, false, &Default::default());
    assert_eq!(rendered.unwrap().text, "a\nx\ny\nbc");
    // Line ends in the data are kept.
    let template = ChatTemplate::compile("{{ messages[0] }}").unwrap();
    let said = ["a\r\nb".into()];
    let rendered = template.render(&said, None, false, &Default::default());
    assert_eq!(rendered.unwrap().text, "a\r\nb");
}

/// jinja2 gives these texts.
#[test]
fn a_generation_block_sees_what_stands_around_it() {
    let messages = [1, 2, 3].map(serde_json::Value::from);
    for (source, expected) in [
        (
            "{% set n = namespace(a=1) %}{% generation %}b{% set n.a = 2 %}{% endgeneration %}{{ n.a }}",
            "b2",
        ),
        (
            "{% set n = namespace(a=1) %}{% generation %}b{% set n.a %}2{% endset %}{% endgeneration %}{{ n.a }}",
            "b2",
        ),
        (
            "{% set l = messages[1:] %}{% generation %}{% for m in l[1:] %}{{ m }}{% endfor %}{% endgeneration %}",
            "3",
        ),
        (
            "{% for m in messages %}{% generation %}{% for n in messages[loop.index:] %}{{ n }}{% endfor %};{% endgeneration %}{% endfor %}",
            "23;3;;",
        ),
        (
            "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}",
            "21",
        ),
    ] {
        let template = ChatTemplate::compile(source).unwrap();
        let rendered = template.render(&messages, None, false, &Default::default());
        let rendered = rendered.unwrap();
        assert_eq!(rendered.text, expected, "{source}");
        assert_eq!(rendered.spans[0].start, 0, "{source}");
    }
}

#[test]
fn what_the_engine_lacks_is_told_from_a_bad_conversation() {
    for (source, lacks) in [
        ("{{ messages | wordcount_of }}", true),
        ("{{ nothing_known() }}", true),
        ("{{ '%s' % 'a' }}", true),
        ("{{ '%d of %s' % (1, 'b') }}", true),
        ("{{ messages % 2 }}", false),
        ("{{ raise_exception('no') }}", false),
        ("{{ messages[0].content.a.b }}", false),
    ] {
        let error = compile(source).render(&[], None, false, &Map::new());
        let error = error.expect_err(source);
        assert_eq!(error.lacks, lacks, "{error}");
    }
}
