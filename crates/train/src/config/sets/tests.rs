//! Tests of sets in configurations, and of the paths in them.

use super::*;
use crate::{
    Config,
    config::{CacheChoice, ConfigError, DataSection},
};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/runs/my.toml"), &[])
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

const SETS: &str = r#"
model = "a/b"
[data]
columns = { prompt = "question" }
[[data.train]]
path = "chat.jsonl"
weight = 2
[[data.train]]
path = ["code/a.jsonl.gz", "b.jsonl"]
name = "code"
samples = 10
format = "completion"
columns = { completion = "answer" }
train_on = "all"
chat_template = "t.jinja"
[[data.eval]]
path = "/eval.jsonl"
"#;

#[test]
fn sets_are_tables_with_options_of_their_own() {
    let config = parse(SETS).unwrap();
    let [chat, code] = &config.data.train[..] else {
        panic!("{:?}", config.data.train);
    };
    let options = config.data_options();
    let sets = [chat.with(options.clone()), code.with(options.clone())];
    assert_eq!(sets[0].name.as_deref(), Some("chat"));
    assert_eq!(sets[0].paths, [Path::new("/etc/runs/chat.jsonl")]);
    assert_eq!(
        (sets[0].amount, sets[1].amount),
        (Amount::Weight(2.0), Amount::Samples(10))
    );
    assert_eq!(sets[0].options, options);
    assert_eq!(sets[1].options.format, Format::Completion);
    assert_eq!(sets[1].options.train_on, TrainOn::All);
    let columns: Vec<_> = sets[1].options.columns.iter().collect();
    assert_eq!(columns, [("completion", "answer")]);
    assert_eq!(
        sets[1].options.chat_template.as_deref(),
        Some("/etc/runs/t.jinja")
    );
    assert_eq!(config.data.eval[0].name.as_deref(), Some("eval"));
    let place = config.places.of("data.train[1].columns").unwrap();
    assert_eq!(place.to_string(), "/etc/runs/my.toml:13");
    // Paths in their place are one set without a name.
    let config = Config::parse(
        SETS,
        Path::new("/etc/runs/my.toml"),
        &["data.train=x".to_owned()],
    );
    let config = config.unwrap();
    assert_eq!(config.data.train, SetSection::of(vec!["x".into()]));
    assert_eq!(config.places.of("data.train[1].columns"), None);
    let json = serde_json::to_string(&parse(SETS).unwrap()).unwrap();
    assert_eq!(
        serde_json::from_str::<Config>(&json).unwrap(),
        parse(SETS).unwrap()
    );
}

#[test]
fn a_set_that_means_nothing_is_refused_with_its_line() {
    let start = "model = \"a/b\"\n[[data.train]]\n";
    for (set, says) in [
        ("weight = 1", "my.toml:2: `data.train[0].path` is missing"),
        ("path = []", "my.toml:3: `data.train[0].path` is missing"),
        (
            "path = \"a\"\nweight = 0",
            "my.toml:4: `data.train[0].weight` must be a number above 0, got 0",
        ),
        ("path = \"a\"\nweight = -1.5", "above 0"),
        ("path = \"a\"\nweight = nan", "above 0"),
        ("path = \"a\"\nweight = inf", "above 0"),
        (
            "path = \"a\"\nsamples = 0",
            "`data.train[0].samples` must be a whole number of at least 1",
        ),
        (
            "path = \"a\"\nweight = 1\nsamples = 2",
            "my.toml:5: `data.train[0]` has `weight` and `samples`",
        ),
        (
            "path = [\"a\", \"./a\"]",
            "`data.train[0].path` names \"/etc/runs/a\" twice",
        ),
        (
            "path = \"a\"\nwieght = 1",
            "unknown key `data.train[0].wieght`; did you mean `weight`?",
        ),
        (
            "path = \"a\"\nmax_length = 1",
            "it belongs in [data], before [[data.train]]",
        ),
        (
            "path = \"a\"\ncolumns = { x = \"y\" }",
            "my.toml:4: `data.train[0].columns`: `x` is no key of a record",
        ),
        (
            "path = \"a\"\ncolumns = { prompt = 3 }",
            "`data.train[0].columns` must be a table such as",
        ),
        ("path = \"a\"\ncolumns = \"x\"", "must be a table such as"),
        ("path = \"https://h/a\"", "is an address"),
        (
            "path = \"a\"\nsplit = \"test\"",
            "my.toml:4: `data.train[0].split` is of data sets of the hub",
        ),
        (
            "path = \"x/a.jsonl\"\n[[data.train]]\npath = \"y/a.jsonl.gz\"",
            "my.toml:4: two sets of `data.train` have the name \"a\"",
        ),
    ] {
        let error = message(&format!("{start}{set}"));
        assert!(error.contains(says), "{error}\nlacks: {says}");
    }
    let mixed = message("model = \"a/b\"\ndata.train = [{ path = \"a\" }, \"b\"]");
    assert!(
        mixed.contains("`data.train[1]` must be a table like the others"),
        "{mixed}"
    );
    let columns = message("model = \"a/b\"\n[data]\ncolumns = { question = \"prompt\" }");
    assert!(
        columns.contains("my.toml:3: `data.columns`: `question` is no key"),
        "{columns}"
    );
    let hub = "[data.train]\npath = \"hub:owner/data@v1\"\nsplit = \"test\"\nsubset = \"en\"";
    let mut hub = parse(&format!("model = \"a/b\"\n{hub}")).unwrap();
    let hub = hub.data.train.remove(0);
    assert_eq!(hub.path, [Path::new("hub:owner/data@v1")]);
    let words = (
        hub.name.as_deref(),
        hub.split.as_deref(),
        hub.subset.as_deref(),
    );
    assert_eq!(words, (Some("data"), Some("test"), Some("en")));
    let one = parse("model = \"a/b\"\n[data.train]\npath = \"a\"").unwrap();
    assert_eq!(one.data.train.len(), 1);
}

#[test]
fn a_cache_is_a_word_or_a_folder() {
    let cache = |text: &str| parse(&format!("model = \"a/b\"\n[data]\ncache = {text}"));
    let folder = CacheChoice::Folder("/etc/runs/tokens".into());
    assert_eq!(cache("\"tokens\"").unwrap().data.cache, folder);
    assert_eq!(cache("\"off\"").unwrap().data.cache, CacheChoice::Off);
    assert_eq!(
        parse("model = \"a/b\"").unwrap().data.cache,
        CacheChoice::Auto
    );
    for wrong in ["\"\"", "true", "\"on\"", "[]"] {
        let error = cache(wrong).unwrap_err().to_string();
        assert!(
            error.contains("`data.cache` must be \"auto\", \"off\", or"),
            "{error}"
        );
    }
}

#[test]
fn paths_are_short_and_begin_at_home() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("examples")).unwrap();
    let file = folder.path().join("examples/my.toml");
    let read = |text: &str| Config::parse(text, &file, &[]).unwrap();
    let config = read("model = \"a/b\"\noutput = \"../runs/x\"\n[data]\ntrain = \"~/t\"");
    assert_eq!(config.output, folder.path().join("runs/x"));
    let home = std::env::home_dir().unwrap();
    assert_eq!(DataSection::paths(&config.data.train), [home.join("t")]);
    // Behind a link, `..` is the parent of the link's target.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("examples", folder.path().join("link")).unwrap();
        let config = read("model = \"a/b\"\noutput = \"../link/../x\"");
        assert_eq!(config.output, folder.path().join("link/../x"));
    }
}

#[test]
fn a_configuration_survives_json() {
    let config = parse(&crate::config::default_toml()).unwrap();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}
