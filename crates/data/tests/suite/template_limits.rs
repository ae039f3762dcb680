//! Templates without end or depth are refused with the name of their file, and in time.

use serde_json::json;
use tightrope_data::{ChatTemplate, DataError};

/// What is said of a template in a file, compiled or rendered.
fn refused(source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.jinja");
    std::fs::write(&path, source).unwrap();
    let messages = [json!({"role": "user", "content": "hi"})];
    let said = match ChatTemplate::from_option(path.to_str().unwrap()) {
        Ok(template) => match template.render(&messages, None, true, &Default::default()) {
            Ok(rendered) => format!("rendered {} bytes", rendered.text.len()),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    assert!(said.contains("hostile.jinja"), "{said}");
    said
}

#[test]
fn work_and_text_have_an_end() {
    for source in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x ~ '' }}",
        "{{ 'x' | indent(1000000000000) }}",
        "{{ '%1000000000000d' | format(1) }}",
        "{{ '{:1000000000000}'.format(1) }}",
        "{{ [1] | batch(1000000000000, 'x') | list }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{{ range(1000000000) | list }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ ('x' * 1000000).join(range(99999)) }}",
        "{{ range(99999) | join('x' * 1000000) }}",
        "{{ ('x' * 100000).replace('', 'y' * 100000) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ] {
        let said = refused(source);
        assert!(!said.starts_with("rendered"), "{source}: {said}");
    }
}

#[test]
fn depth_has_an_end() {
    let many = |before: &str, after: &str| {
        let (before, after) = (before.repeat(20_000), after.repeat(20_000));
        refused(&format!("{{{{ {before}1{after} }}}}"))
    };
    for (before, after) in [
        ("not ", ""),
        ("-", ""),
        ("", " | abs"),
        ("", ".a"),
        ("", "+1"),
        ("", "~1"),
        ("", "[0]"),
        ("", " is odd"),
        ("", " ** 1"),
        ("", " if 1 else 1"),
        ("[", "]"),
    ] {
        let said = many(before, after);
        assert!(said.contains("a tag of more than"), "{said}");
    }
    let branches = refused(&format!(
        "{{% if 0 %}}{}{{% endif %}}",
        "{% elif 0 %}".repeat(5_000)
    ));
    assert!(branches.contains("`elif`"), "{branches}");
    assert!(refused(&"x".repeat(300_000)).contains("bytes"));
    for source in [
        "{% set n = namespace(x=1) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=1) %}{% for i in range(99999) %}{% set n.x = {'a': n.x} %}{% endfor %}{{ n.x | tojson }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(99999) %}{% set n.x | batch(2, n.x) | list %}a{% endset %}{% endfor %}",
        "{% set n = namespace(x=1) %}{% set n.x = n %}{{ n ~ '' }}",
        "{% set n = namespace(x=1) %}{% for i in range(9999) %}{% set b = n.x %}{% macro m() %}{{ b }}{% endmacro %}{% set n.x = m %}{% endfor %}",
    ] {
        let said = refused(source);
        assert!(!said.starts_with("rendered"), "{source}: {said}");
    }
}

/// The longest and deepest that is allowed neither overflows the stack nor is refused.
#[test]
fn what_is_within_the_limits_works() {
    for (before, after) in [
        ("not ", ""),
        ("-", ""),
        ("", " | int"),
        ("", "+1"),
        ("", "~1"),
    ] {
        let source = format!("{{{{ {}1{} }}}}", before.repeat(4_000), after.repeat(4_000));
        let template = ChatTemplate::compile(&source).unwrap();
        template
            .render(&[], None, true, &Default::default())
            .unwrap();
    }
    let branches = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(1_000));
    ChatTemplate::compile(&branches).unwrap();
    // Lists in lists by recursion: the deepest value that a template can make.
    let nested = format!("{}x{}", "[".repeat(60), "]".repeat(60));
    let source = format!(
        "{{% macro m(x, n) %}}{{% if n %}}{{{{ m({nested}, n - 1) }}}}{{% endif %}}{{% endmacro %}}{{{{ m(1, 25) }}}}"
    );
    let template = ChatTemplate::compile(&source).unwrap();
    template
        .render(&[], None, true, &Default::default())
        .unwrap();
}

#[test]
fn a_tag_that_is_only_its_end_is_a_syntax_error() {
    for source in [
        "{%}",
        "{{ messages[0].content }}{%}",
        "{{}}",
        "{%%}",
        "{#}",
        "{%-%}",
    ] {
        let compiled = ChatTemplate::compile(source);
        assert!(
            matches!(compiled, Err(DataError::Template { .. })),
            "{source}"
        );
    }
}

#[test]
fn a_long_conversation_may_take_more() {
    let quadratic = "{% for m in messages %}{% for n in messages[loop.index:] %}{% if n.role == 'user' %}{% endif %}{% endfor %}{{ m.content }}{% endfor %}";
    let template = ChatTemplate::compile(quadratic).unwrap();
    let messages: Vec<_> = (0..2_000)
        .map(|i| json!({"role": "user", "content": format!("question {i}, and what it is about")}))
        .collect();
    template
        .render(&messages, None, true, &Default::default())
        .unwrap();
}
