//! Endless or deep templates are refused with the name of their file, and in time.

use serde_json::json;
use tightrope_data::{ChatTemplate, DataError};

/// The error about a template in a file, when it is compiled or rendered.
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
    assert!(said.contains("hostile.jinja"), "{source}: {said}");
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
fn what_macros_lack_is_named() {
    let said = refused("{% macro m() %}\n{{ varargs | length }}{% endmacro %}{{ m(1) }}");
    assert!(
        said.contains("line 2") && said.contains("`varargs` of a macro"),
        "{said}"
    );
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

/// The longest and deepest allowed templates neither overflow the stack nor are refused.
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

/// Two values of sixty levels, each of which holds the level below twice.
fn shared(body: &str) -> String {
    format!(
        "{{% macro m(x, y, n) %}}{{% if n %}}{{{{ m([x, x], [y, y], n - 1) }}}}{{% else %}}{body}{{% endif %}}{{% endmacro %}}{{{{ m([1], [1], 60) }}}}"
    )
}

#[test]
fn what_is_shared_counts_each_time_it_is_walked() {
    for body in [
        "{{ x }}",
        "{{ x ~ '' }}",
        "{{ x == y }}",
        "{{ x not in [y] }}",
        "{{ x in 'text' }}",
        "{{ {x: 1} }}",
        "{{ {'a': 1}.get(x) }}",
        "{{ [x].count(y) }}",
        "{{ '{}'.format(x) }}",
        "{{ '%s' | format(x) }}",
        "{{ x | upper }}",
        "{{ x | replace('1', '2') }}",
        "{{ x | trim }}",
        "{{ x | tojson }}",
        "{{ x | pprint }}",
        "{{ [x, y] | sort }}",
        "{{ [x, y] | unique }}",
        "{{ [{'a': x}, {'a': y}] | groupby('a') }}",
        "{{ {'a': x, 'b': y} | dictsort(by='value') }}",
        "{{ [x] | map('string') | list }}",
        "{{ [{'a': x}] | selectattr('a', 'in', [y]) | list }}",
        "{{ x is eq(y) }}",
        "{{ x is startingwith 'a' }}",
        "{{ raise_exception(x) }}",
        "{% for i in [x, y] %}{{ loop.changed(i) }}{% endfor %}",
        "{% set a = [x] %}",
        "{% for i in [1] if x == y %}{% endfor %}",
        "{% with a = x == y %}{% endwith %}",
        "{{ debug() }}",
    ] {
        let said = refused(&shared(body));
        assert!(!said.starts_with("rendered"), "{body}: {said}");
    }
    for doubling in [
        "{% with x = [x, x] %}",
        "{% for x in [[x, x]] %}",
        "{% set x = [x] * 2 %}",
        "{% set x = x + x %}",
        "{% set x = {'a': x, 'b': x} %}",
        "{% set x = dict(a=x, b=x) %}",
        "{% set x = [1] | batch(3, x) | list %}",
        "{% set x = [0, 0] | map('default', x, true) | list %}",
        "{% set x = x | zip(x) | list %}",
    ] {
        let source = format!(
            "{{% set x = [1] %}}{}{{{{ [x, 1] == [x + [], 1] }}}}{{{{ x ~ '' }}}}",
            doubling.repeat(60)
        );
        let ends = doubling.contains("with") as usize * 60;
        let source = source + &"{% endwith %}".repeat(ends);
        let ends = doubling.contains("for x") as usize * 60;
        let source = source + &"{% endfor %}".repeat(ends);
        let said = refused(&source);
        assert!(!said.starts_with("rendered"), "{doubling}: {said}");
    }
    let mut nested = "[1]".to_owned();
    (0..60).for_each(|_| nested = format!("[{nested}, 1] * 2"));
    let said = refused(&format!("{{{{ {nested} == {nested} }}}}"));
    assert!(!said.starts_with("rendered"), "{said}");
}

#[test]
fn lists_that_the_engine_would_make_as_they_are_read_are_paid_for() {
    for source in [
        "{{ ([1] * 10**15)[10**14:] | first }}",
        "{{ [1] * 10**9 == 1 }}",
        "{% set x = [1] %}{% set y = [1] * 10**9 %}{{ x + y }}",
        "{{ 2 * [1] * 10**12 }}",
        "{% set b = [1] * 99999 %}{{ [b] * 99999 == [[b]] }}{{ b in [b + []] * 99999 }}",
        "{% set s = 'x' * 999999 %}{% set t = 'x' * 999999 %}{{ [s] * 99999 == [t] * 99999 }}",
    ] {
        let said = refused(source);
        assert!(!said.starts_with("rendered"), "{source}: {said}");
    }
}

#[test]
fn the_engine_does_not_panic() {
    for source in [
        "{% for i in [1] %}{{ loop.cycle() }}{% endfor %}",
        "{% for i in [1] %}{{ loop.cycle(*[]) }}{% endfor %}",
    ] {
        let said = refused(source);
        assert!(!said.starts_with("rendered"), "{source}: {said}");
    }
}
