//! Reading configurations, good and bad.

use super::*;
use tightrope_kernels::adamw_8bit;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/runs/my.toml"), &[])
}

fn with(sets: &[&str]) -> Result<Config, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Config::parse("model = \"a/b\"", Path::new("/etc/runs/my.toml"), &sets)
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn yaml_and_text_without_quotes_have_words_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    for (text, expected) in [
        ("# mine\n\nmodel: x\ndata:\n  - a\n", "this is YAML"),
        ("---\nbase_model: x\n", "this is YAML"),
        (
            "model = ../../M\n",
            "c.toml:1: text needs quotes: model = \"../../M\"",
        ),
        (
            "model = \"m\"\n[data]\ntrain = my-data.jsonl\n",
            "c.toml:3: text needs quotes",
        ),
        ("seed = 1.x\n", "c.toml:1: "),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = Config::load(&file, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    std::fs::write(&file, b"\xff\xfem\0").unwrap();
    let error = Config::load(&file, &[]).unwrap_err().to_string();
    assert!(error.contains("this is UTF-16"), "{error}");
}

#[test]
fn every_default_of_the_table_is_read() {
    let config = parse("model = \"a/b\"\n[lora]\n").unwrap();
    for key in KEYS {
        let path = key.path();
        let value = config.entries().into_iter().find(|(k, _)| k.path() == path);
        let may_be_absent = "adapter data.chat_template objective.beta objective.reference \
            objective.convention objective.gamma objective.label_smoothing objective.cross_entropy objective.desirable_weight \
            objective.undesirable_weight objective.center_rewards_coefficient \
            tokens.add tokens.add_special tokens.init tokens.descriptions \
            packing.max_sequences packing.share_prefix packing.file lora.exclude_modules \
            lora.trainable_token_indices \
            lora.layers lora.rank_pattern lora.alpha_pattern batch.sequences_per_step \
            optimizer.embedding_learning_rate optimizer.head_learning_rate optimizer.momentum \
            optimizer.nesterov optimizer.ns_steps optimizer.adjust_lr \
            optimizer.adamw_learning_rate optimizer.decay_rate optimizer.clip_threshold \
            optimizer.scale_parameter optimizer.r optimizer.weight_lr_power schedule.warmup_steps \
            schedule.decay_steps schedule.decay_ratio schedule.decay_shape schedule.timescale \
            schedule.cycles schedule.power run.max_steps run.eval_every run.patience";
        assert_eq!(
            value.is_none(),
            may_be_absent.split(' ').any(|absent| absent == path),
            "{path}"
        );
        assert!(
            SECTIONS.iter().any(|(section, _)| *section == key.section),
            "{path}"
        );
        assert!(key.help.ends_with('.'), "{path}");
    }
    assert_eq!(config.optimizer.learning_rate, 2e-4);
    assert_eq!(config.output, Path::new("/etc/runs/runs/my"));
    assert_eq!(
        (config.packing.capacity, config.data.max_length),
        (2048, 2048)
    );
}

#[test]
fn the_sections_of_the_manual_are_understood() {
    let config = parse(
        r#"
        model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        adapter = "old/adapter"
        output = "runs/name"
        device = "cpu"
        seed = 7
        [data]
        train = ["a.jsonl", "/abs/b.jsonl"]
        eval = "c.jsonl"
        max_length = 512
        overlong = "drop"
        train_on = "assistant"
        on_bad_row = "skip"
        chat_template = "template.jinja"
        [packing]
        mode = "bucketed"
        [lora]
        r = 8
        alpha = 16
        dropout = 0.1
        target_modules = ["q_proj", "v_proj"]
        rslora = true
        quantize = "nf4"
        lora_plus_ratio = 4
        [batch]
        sequences_per_step = 4
        accumulation = 2
        [optimizer]
        learning_rate = 1e-3
        [schedule]
        kind = "linear"
        warmup_steps = 3
        [run]
        max_steps = 10
        eval_every = 5
        patience = 2
        "#,
    )
    .unwrap();
    assert_eq!(
        config.adapter.as_deref(),
        Some(Path::new("/etc/runs/old/adapter"))
    );
    assert_eq!(config.output, Path::new("/etc/runs/runs/name"));
    let expected = [Path::new("/etc/runs/a.jsonl"), Path::new("/abs/b.jsonl")];
    assert_eq!(DataSection::paths(&config.data.train), expected);
    assert_eq!(
        DataSection::paths(&config.data.eval),
        [Path::new("/etc/runs/c.jsonl")]
    );
    assert_eq!(
        config.data.chat_template.as_deref(),
        Some("/etc/runs/template.jinja")
    );
    assert_eq!(config.packing.mode, Algorithm::Bucketed);
    assert_eq!(config.base_storage(), BaseStorage::Nf4);
    let lora = config.lora.unwrap();
    assert_eq!((lora.r, lora.alpha, lora.lora_plus_ratio), (8, 16.0, 4.0));
    let names = ["q_proj", "v_proj"].map(String::from).to_vec();
    let names = TargetModules::Named(ModuleNames::List(names));
    assert_eq!(lora.target_modules, names);
    assert_eq!(
        (config.schedule.warmup_steps, config.schedule.warmup_ratio),
        (Some(3), None)
    );
    assert_eq!((config.run.max_steps, config.run.epochs), (Some(10), None));
    assert_eq!(
        (config.batch.packs_per_step, config.batch.sequences_per_step),
        (None, Some(4))
    );
}

#[test]
fn without_lora_everything_is_trained() {
    let config = parse("model = \"a/b\"").unwrap();
    assert_eq!(config.lora, None);
    assert_eq!(config.optimizer.learning_rate, 2e-5);
    let lora = with(&["lora.r=8"]).unwrap().lora.unwrap();
    assert_eq!(
        lora.target_modules,
        TargetModules::AllLinear(AllLinear::AllLinear)
    );
    assert_eq!((lora.r, lora.alpha), (8, 32.0));
    assert_eq!(lora.quantize, Quantize::None);
    assert_eq!(config.base_storage(), BaseStorage::AsStored);
    let adapter = with(&["adapter=a"]).unwrap();
    assert!(adapter.lora.is_some(), "an adapter is trained as one");
    assert_eq!(adapter.optimizer.learning_rate, 2e-4);
}

#[test]
fn the_template_is_a_configuration() {
    let text = default_toml();
    assert_eq!(
        parse(&text).unwrap(),
        parse("model = \"path or hub id\"").unwrap()
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let words = text.replace("\n#", "");
    let markdown = reference_markdown();
    for key in KEYS {
        let value = format!("{} Value: {}.", key.help, key.kind.expected());
        assert!(words.contains(&value), "{}", key.path());
        assert!(markdown.contains(&format!("| `{}` |", key.path())));
    }
}

#[test]
fn words_of_the_table_are_the_words_of_the_crates() {
    for algorithm in Algorithm::ALL {
        let set = format!("packing.mode={}", algorithm.name());
        assert_eq!(with(&[&set]).unwrap().packing.mode, algorithm);
    }
    for key in KEYS {
        if let Kind::Choice(words) = key.kind {
            for word in words {
                let path = key.path();
                let mut sets = vec!["data.eval_ratio=0.5"];
                sets.extend(match &*path {
                    "objective.reference" | "objective.convention" => Some("objective.kind=dpo"),
                    "tokens.init" => Some("tokens.add=[\"<tool>\"]"),
                    "optimizer.adjust_lr" => Some("optimizer.kind=muon"),
                    "schedule.decay_shape" => Some("schedule.kind=wsd"),
                    "lora.init" if *word == "loftq" => Some("lora.quantize=nf4"),
                    _ => None,
                });
                let set = format!("{path}={word}");
                sets.push(&set);
                with(&sets).unwrap_or_else(|e| panic!("{path} {word}: {e}"));
            }
        }
    }
}

#[test]
fn the_best_is_left_where_the_run_stops_at_it() {
    let patient = ["data.eval_ratio=0.5", "run.eval_every=2", "run.patience=1"];
    let result = |sets: &[&str]| with(sets).unwrap().run.result;
    assert_eq!(result(&[]), RunResult::Last);
    assert_eq!(result(&patient[..2]), RunResult::Last);
    assert_eq!(result(&patient), RunResult::Best);
    let [ratio, every, patience] = patient;
    let last = [ratio, every, patience, "run.result=last"];
    assert_eq!(result(&last), RunResult::Last);
    let error = with(&["run.result=best"]).unwrap_err().to_string();
    assert!(error.contains("data.eval"), "{error}");
}

#[test]
fn the_state_of_the_optimizer_has_one_name_and_the_help_its_least_size() {
    let key = Key::find("optimizer.state").unwrap();
    let Kind::Choice(words) = key.kind else {
        panic!("{key:?}");
    };
    for word in words {
        let config = with(&[&format!("optimizer.state={word}")]).unwrap();
        assert_eq!(config.optimizer.state.name(), *word);
    }
    assert_eq!(adamw_8bit::LEAST_ELEMENTS, 4096);
    assert!(key.help.contains("fewer than 4,096 elements"));
}

#[test]
fn unknown_keys_are_errors_with_a_place_and_the_nearest_key() {
    let cases = [
        (
            "modle = \"x\"",
            "/etc/runs/my.toml:1: unknown key `modle`; did you mean `model`?",
        ),
        (
            "model = \"a/b\"\n\n[optimiser]\nbeta1 = 0.5",
            "my.toml:3: unknown key `optimiser`; did you mean the section [optimizer]?",
        ),
        (
            "[optimizer]\nlearning_rte = 1",
            "my.toml:2: unknown key `optimizer.learning_rte`; did you mean `optimizer.learning_rate`?",
        ),
        (
            "learning_rate = 1",
            "`learning_rate` belongs in [optimizer]",
        ),
        (
            "[run]\nmodel = \"a\"",
            "`model` belongs at the top, before any [section]",
        ),
        (
            "lr = 1",
            "unknown key `lr`; it is `optimizer.learning_rate` here",
        ),
        (
            "[optimizer]\nlr = 1",
            "it is `optimizer.learning_rate` here",
        ),
        ("[run]\nsave_steps = 1", "it is `run.save_every` here"),
        ("[lora]\nzzz = 1", "[lora] has r, alpha, dropout,"),
        ("qqqq = 1", "the top level has model, adapter,"),
        (
            "qqqq = 1",
            "and the sections [tokens], [data], [objective],",
        ),
    ];
    for (text, expected) in cases {
        let message = message(text);
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    let address = with(&["data.eval=https://me:hf_1234@host/a.jsonl"]).unwrap_err();
    let address = address.to_string();
    assert!(
        address.starts_with("--set data.eval: https://host/a.jsonl is"),
        "{address}"
    );
    let set = with(&["lora.rank=3"]).unwrap_err().to_string();
    assert!(set.starts_with("--set lora.rank = 3: unknown key"), "{set}");
}

#[test]
fn wrong_values_say_what_is_expected() {
    let cases = [
        (
            "seed = \"x\"",
            "my.toml:1: `seed` must be a whole number of at least 0, got \"x\"",
        ),
        ("seed = -1", "at least 0, got -1"),
        ("seed = 99999999999999999999", "`seed` must be"),
        (
            "[run]\n\nmax_steps = 0",
            "my.toml:3: `run.max_steps` must be a whole number of at least 1, got 0",
        ),
        ("[optimizer]\nbeta1 = 1.0", "a number in [0, 1), got 1.0"),
        (
            "[optimizer]\nlearning_rate = nan",
            "a number above 0, got nan",
        ),
        (
            "[packing]\nmode = \"bestfit\"",
            "got \"bestfit\"; did you mean \"best-fit\"?",
        ),
        (
            "[lora]\ntarget_modules = []",
            "[\"q_proj\", \"v_proj\"], or a regular expression for whole names, got []",
        ),
        (
            "[lora]\nrank_pattern = { q_proj = 0 }",
            "`lora.rank_pattern` must be a table of whole numbers of at least 1",
        ),
        (
            "[lora]\nlayers = [-1]",
            "a list of whole numbers such as [0, 1], got [-1]",
        ),
        (
            "lora = true",
            "`lora` must be a section: write [lora] on a line of its own",
        ),
        ("model = \"\"", "`model` must be"),
        ("model = ", "my.toml:1: "),
        (
            "[data]\ntrain = [1]",
            "a list of paths, or tables with a `path` each, got [1]",
        ),
    ];
    for (text, expected) in cases {
        let message = message(text);
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
}

#[test]
fn contradictions_say_what_to_do() {
    let cases: [(&[&str], &str); 15] = [
        (&["run.max_steps=1", "run.epochs=2"], "remove one"),
        (
            &["lora.init=pissa", "lora.quantize=nf4"],
            "use `lora.init` = \"loftq\" or \"random\" with `lora.quantize`",
        ),
        (&["lora.init=loftq"], "set `lora.quantize` = \"nf4\" too"),
        (
            &["schedule.warmup_steps=1", "schedule.warmup_ratio=0.1"],
            "remove one",
        ),
        (
            &["packing.capacity=64", "data.max_length=65"],
            "raise the capacity or lower the length",
        ),
        (
            &["packing.mode=padded", "batch.packs_per_step=2"],
            "use `batch.sequences_per_step`",
        ),
        (
            &["batch.sequences_per_step=2", "batch.packs_per_step=2"],
            "both give the size of a step",
        ),
        (
            &["batch.sequences_per_step=2", "batch.accumulation=2"],
            "as many passes as its sequences need",
        ),
        (
            &["batch.sequences_per_step=2", "packing.file=a.json"],
            "each step is packed by itself",
        ),
        (
            &["batch.sequences_per_step=2", "packing.mode=wrapped"],
            "needs whole sequences",
        ),
        (
            &["packing.mode=padded", "batch.accumulation=3"],
            "cannot be divided among",
        ),
        (
            &["run.eval_every=5"],
            "set `data.eval` or `data.eval_ratio`",
        ),
        (
            &["run.patience=1", "data.eval_ratio=0.1"],
            "set `run.eval_every` too",
        ),
        (&["data.eval=a", "data.eval_ratio=0.1"], "remove one"),
        (&["seed"], "write it as key=value"),
    ];
    for (sets, expected) in cases {
        let message = with(sets).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    assert!(message("seed = 1").contains("my.toml: `model` is missing"));
    let io = Config::load(Path::new("/no/such/file.toml"), &[]).unwrap_err();
    assert!(io.to_string().starts_with("/no/such/file.toml: "), "{io}");
}

#[test]
fn lengths_follow_each_other() {
    let lengths = |sets: &[&str]| {
        let config = with(sets).unwrap();
        (config.packing.capacity, config.data.max_length)
    };
    assert_eq!(lengths(&["packing.capacity=64"]), (64, 64));
    assert_eq!(lengths(&["data.max_length=64"]), (2048, 64));
    assert_eq!(lengths(&["data.max_length=4096"]), (4096, 4096));
    assert_eq!(
        lengths(&[
            "packing.mode=wrapped",
            "packing.capacity=8",
            "data.max_length=9"
        ]),
        (8, 9)
    );
}

#[test]
fn sets_win_and_need_no_quotes_around_text() {
    let config = with(&[
        "seed=1",
        "seed=2",
        "output=runs/x",
        "data.train=[\"a\", 'b']",
    ])
    .unwrap();
    assert_eq!(config.seed, 2);
    assert_eq!(
        config.output,
        Path::new("runs/x"),
        "relative to the current folder"
    );
    assert_eq!(
        DataSection::paths(&config.data.train),
        [Path::new("a"), Path::new("b")]
    );
    assert_eq!(with(&["model = \"c/d\""]).unwrap().model, "c/d");
}

#[test]
fn a_model_is_a_path_only_if_it_can_be_one() {
    let model = |text: &str| parse(&format!("model = \"{text}\"")).unwrap().model;
    assert_eq!(model("owner/name"), "owner/name");
    assert_eq!(model("./owner"), "/etc/runs/owner");
    assert_eq!(model("m.gguf"), "/etc/runs/m.gguf");
    assert_eq!(model("/m"), "/m");
    // A folder beside the configuration wins over a hub id.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("owner/name")).unwrap();
    let file = folder.path().join("c.toml");
    let config = Config::parse("model = \"owner/name\"", &file, &[]).unwrap();
    assert_eq!(Path::new(&config.model), folder.path().join("owner/name"));
}

#[test]
fn the_document_has_the_table_of_keys() {
    let document = include_str!("../../../../docs/configuration.md");
    let table = reference_markdown();
    assert!(
        document.contains(&table),
        "docs/configuration.md lacks this table; put it in:\n{table}"
    );
}
