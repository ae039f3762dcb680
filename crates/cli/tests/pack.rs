//! `tightrope pack`: the stable JSON, the written files, and the errors for bad files.

use std::{path::Path, process::Command};

use serde_json::Value;

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn pack(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tightrope"));
    let output = command
        .current_dir(folder)
        .arg("pack")
        .args(arguments)
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn all_algorithms_as_json() {
    let counts = "[0, 0, 4, 0, 0, 0, 4]";
    let object = format!("{{\"counts\": {counts}}}");
    let folder = folder(&[("a.json", counts), ("b.json", &object)]);
    for file in ["a.json", "b.json"] {
        let ran = pack(
            folder.path(),
            &["--histogram", file, "--capacity", "10", "--json"],
        );
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
        let names: Vec<&str> = rows
            .iter()
            .map(|r| r["algorithm"].as_str().unwrap())
            .collect();
        let expected = [
            "best-fit",
            "first-fit",
            "spfhp",
            "lpfhp",
            "nnlshp",
            "streaming",
            "wrapped",
        ];
        assert_eq!(names, expected);
        for row in &rows {
            assert!(row["packs"].as_u64().unwrap() >= row["lower_bound"].as_u64().unwrap());
            assert!(row["seconds"].as_f64().unwrap() >= 0.0);
        }
        assert_eq!(rows[0]["packs"], 4);
        assert_eq!(rows[0]["efficiency"], 1.0);
        assert_eq!(rows[0]["depth"], Value::Null);
        assert_eq!(rows[4]["depth"], 3);
    }
}

#[test]
fn one_algorithm_with_a_depth() {
    let folder = folder(&[("lengths", "3\n3\r\n3\n3")]);
    let arguments = [
        "--lengths",
        "lengths",
        "--capacity",
        "12",
        "--depth",
        "2",
        "--json",
    ];
    let ran = pack(
        folder.path(),
        &[&arguments[..], &["--algorithm", "lpfhp"]].concat(),
    );
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["packs"], &rows[0]["depth"]),
        (&2.into(), &2.into())
    );
}

#[test]
fn the_table_the_drawing_and_the_packing() {
    let folder = folder(&[("lengths", "7\n3\n12\n0\n5\n")]);
    let arguments = ["--lengths", "lengths", "--capacity", "10"];
    let files = ["--svg", "packs.svg", "--write", "packing.json"];
    let ran = pack(folder.path(), &[&arguments[..], &files].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for said in [
        "5 sequences",
        "1 truncated",
        "2 tokens lost",
        "optimal",
        "Batches of 8",
    ] {
        assert!(ran.stdout.contains(said), "{said}:\n{}", ran.stdout);
    }
    let svg = std::fs::read_to_string(folder.path().join("packs.svg")).unwrap();
    assert!(svg.contains("Sequences by length") && svg.contains("how full"));
    let stored = std::fs::read(folder.path().join("packing.json")).unwrap();
    let packing: tightrope_data::packing::Packing = serde_json::from_slice(&stored).unwrap();
    assert_eq!((packing.len(), packing.tokens()), (3, 25));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        3,
        "nothing temporary is left"
    );
}

#[test]
fn bad_files_are_named_with_the_place() {
    let long = "9".repeat(1000);
    let files = [
        ("letter", "5\n1a\n", "letter:2: `1a`"),
        ("blank", "5\n\n6\n", "blank:2: ``"),
        ("negative", "-5\n", "negative:1: `-5`"),
        ("large", "4294967296\n", "large:1: `4294967296`"),
        ("endless", &long, "endless:1: `999"),
        ("fraction", "5\n6.0\n", "fraction:2: `6.0`"),
        ("nan", "5\nNaN\n", "nan:2: `NaN`"),
        ("empty", "", "empty: no sequences"),
    ];
    for (name, text, expected) in files {
        let folder = folder(&[(name, text)]);
        let ran = pack(folder.path(), &["--lengths", name, "--capacity", "10"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    let files = [
        ("[1, -2]", "h.json:1:5: count 1 is -2"),
        ("[1,\n 2.5]", "h.json:2:2: count 1 is 2.5"),
        ("{\"counts\": [1e3]}", "count 0 is 1e3"),
        ("{\"count\": []}", "missing field `counts` at line 1"),
        (
            "5",
            "expected an array, or an object with an array `counts`",
        ),
        ("[1,", "h.json: is not a histogram"),
        ("[18446744073709551615, 1]", "overflows 64 bits at length 2"),
        (
            "[1, 18446744073709551616]",
            "count 1 is 18446744073709551616, not a whole number from 0 to 18446744073709551615",
        ),
        ("[1, NaN]", "line 1 column 5"),
        ("[1, \"2\"]", "count 1 is \"2\""),
        ("", "line 1 column 0"),
        ("[0, 0]", "h.json: no sequences"),
    ];
    for (text, expected) in files {
        let folder = folder(&[("h.json", text)]);
        let ran = pack(
            folder.path(),
            &["--histogram", "h.json", "--capacity", "10"],
        );
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
    let folder = folder(&[("lengths", "5\n20\n"), ("h.json", "[1]")]);
    let fails = |arguments: &[&str], expected: &str| {
        let ran = pack(folder.path(), arguments);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    };
    let lengths = ["--lengths", "lengths", "--capacity"];
    fails(&[&lengths[..], &["0"]].concat(), "capacity 0");
    let strict = [&lengths[..], &["10", "--overlong", "error"]].concat();
    fails(
        &strict,
        "lengths:2: 20 tokens, more than the capacity of 10",
    );
    let none = [&lengths[..], &["2", "--overlong", "drop"]].concat();
    fails(&none, "nothing is left to pack");
    let write = ["--histogram", "h.json", "--capacity", "10", "--write", "x"];
    fails(&write, "--write needs");
    for (file, expected) in [("no/x", "there is no folder no"), (".", "it is a folder")] {
        for option in ["--write", "--svg"] {
            fails(&[&lengths[..], &["10", option, file]].concat(), expected);
        }
    }
    fails(
        &["--lengths", "none", "--capacity", "10"],
        "cannot read none",
    );
}

#[test]
fn wrong_options_are_named() {
    let folder = folder(&[("lengths", "5\n")]);
    let fails = |code: i32, options: &[&str], expected: &str| {
        let arguments = [&["--lengths", "lengths"], options].concat();
        let ran = pack(folder.path(), &arguments);
        assert_eq!(ran.code, Some(code));
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    };
    let at_ten = |code, option, value, expected| {
        let options = ["--capacity", "10", option, value, "--json"];
        fails(code, &options, expected);
    };
    fails(2, &[], "--capacity <N>");
    fails(2, &["--capacity", "-1"], "'-1' for '--capacity <N>': not a");
    fails(2, &["--capacity", "1.5"], "'1.5' for '--capacity <N>'");
    fails(2, &["--capacity", "ten"], "'ten' for '--capacity <N>'");
    fails(1, &["--capacity", "4294967297"], "capacity 4294967297");
    at_ten(
        2,
        "--algorithm",
        "bestfit",
        "similar value exists: 'best-fit'",
    );
    at_ten(2, "--algorithm", "nnls", "similar value exists: 'nnlshp'");
    at_ten(2, "--overlong", "trunc", "similar value exists: 'truncate'");
    at_ten(2, "--depth", "4294967296", "fits 32 bits");
    at_ten(1, "--depth", "0", "depth must be at least 1, got 0");
    at_ten(1, "--window", "0", "window must be at least 1, got 0");
    at_ten(
        1,
        "--batch-size",
        "0",
        "batch_size must be at least 1, got 0",
    );
    at_ten(2, "--histogram", "h.json", "cannot be used with");
}

/// Fewer sequences than a batch holds: one batch.
#[test]
fn a_small_histogram_is_one_padded_batch() {
    let folder = folder(&[("h.json", "[1, 2]")]);
    let ran = pack(folder.path(), &["--histogram", "h.json", "--capacity", "5"]);
    let padding = "Batches of 8: 16.7 % padding in random order, 16.67 % when bucketed";
    assert!(ran.stdout.contains(padding), "{}", ran.stdout);
}

/// Only what the command itself wrote is replaced.
#[test]
fn files_of_others_are_not_replaced() {
    let folder = folder(&[("lengths", "10\n20\n"), ("notes", "<svg"), ("empty", "")]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    for (option, name) in [
        ("--write", "lengths"),
        ("--svg", "lengths"),
        ("--write", "notes"),
        ("--svg", "notes"),
        ("--write", "empty"),
    ] {
        let before = read(name);
        let arguments = ["--lengths", "lengths", "--capacity", "40", option, name];
        let ran = pack(folder.path(), &arguments);
        assert_ne!(ran.code, Some(0), "{option} {name}");
        assert!(ran.stderr.contains("not replaced"), "{}", ran.stderr);
        assert_eq!(read(name), before);
    }
    for capacity in ["40", "50"] {
        let files = ["--write", "packing.json", "--svg", "packs.svg"];
        let arguments = ["--lengths", "lengths", "--capacity", capacity];
        pack(folder.path(), &[&arguments[..], &files].concat());
    }
    let error = pack(
        folder.path(),
        &[
            "--lengths",
            "lengths",
            "--capacity",
            "40",
            "--svg",
            "packing.json",
        ],
    );
    assert_ne!(error.code, Some(0));
}

/// If it is interrupted while it writes, it leaves nothing; otherwise it leaves the whole file.
#[cfg(unix)]
#[test]
fn an_interrupted_write_leaves_nothing() {
    let folder = folder(&[("lengths", &"7\n".repeat(2_000_000))]);
    let files = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lengths").collect()
    };
    let mut run = Command::new(env!("CARGO_BIN_EXE_tightrope"))
        .current_dir(folder.path())
        .args(["pack", "--lengths", "lengths", "--capacity", "7"])
        .args(["--algorithm", "best-fit", "--write", "packing.json"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while files().is_empty() {
        assert_eq!(run.try_wait().unwrap(), None, "nothing was written");
    }
    let id = run.id().to_string();
    let kill = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(kill.success());
    match run.wait().unwrap().code() {
        Some(130) if files().is_empty() => {}
        // The signal came too late: the file had its final name.
        _ => {
            assert_eq!(files(), ["packing.json"]);
            let stored = std::fs::read(folder.path().join("packing.json")).unwrap();
            serde_json::from_slice::<tightrope_data::packing::Packing>(&stored).unwrap();
        }
    }
}

/// Every published count, to the unit.
#[test]
fn the_golden_counts() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packing/tests/data");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(data.join(name)).unwrap()).unwrap()
    };
    let (histograms, golden) = (read("length_histograms.json"), read("packing_golden.json"));
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for (name, capacity) in [("wikipedia", "512"), ("squad_1_1", "384")] {
        let file = folder.path().join(name);
        std::fs::write(&file, histograms[name].to_string()).unwrap();
        let mut check = |algorithm: &str, capacity: &str, depth: Option<u64>, packs: &Value| {
            let mut arguments = vec!["--histogram", name, "--capacity", capacity];
            arguments.extend(["--algorithm", algorithm, "--json"]);
            let text = depth.map(|depth| depth.to_string());
            arguments.extend(text.iter().flat_map(|text| ["--depth", text.as_str()]));
            let ran = pack(folder.path(), &arguments);
            let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!(&rows[0]["packs"], packs, "{arguments:?}");
            let tokens = golden[name]["tokens"].as_f64().unwrap();
            let room = packs.as_f64().unwrap() * capacity.parse::<f64>().unwrap();
            let efficiency = rows[0]["efficiency"].as_f64().unwrap();
            // Reading the JSON here may change the last bit.
            assert!((efficiency - tokens / room).abs() < 1e-15);
            checked += 1;
        };
        for algorithm in ["spfhp", "lpfhp", "nnlshp"] {
            for row in golden[name][algorithm].as_array().unwrap() {
                check(algorithm, capacity, row[0].as_u64(), &row[1]);
            }
        }
        let best_fit = &golden[name]["best_fit_decreasing_by_capacity"];
        for (capacity, packs) in best_fit.as_object().unwrap() {
            check("best-fit", capacity, None, packs);
        }
    }
    assert_eq!(checked, 31, "entries of the file");
}

/// A few bytes can name huge numbers: these are counted or refused, immediately and with little
/// memory.
#[cfg(target_os = "linux")]
#[test]
fn huge_numbers_take_neither_memory_nor_time() {
    let lengths = "4294967295\n".repeat(3);
    let folder = folder(&[
        ("lengths", &lengths),
        ("h.json", "[0, 9007199254740992, 0, 9007199254740992, 1]"),
    ]);
    let limited = |arguments: &str| {
        let command = format!("ulimit -v 4000000; exec \"$0\" pack {arguments}");
        let output = Command::new("sh")
            .current_dir(folder.path())
            .args(["-c", &command, env!("CARGO_BIN_EXE_tightrope")])
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    for capacity in ["1", "8", "64", "4096"] {
        let (code, _, stderr) = limited(&format!(
            "--lengths lengths --capacity {capacity} --overlong drop"
        ));
        assert_eq!(code, Some(1));
        assert!(stderr.contains("3 over-long, dropped"), "{stderr}");
        for more in ["", " --overlong split"] {
            let (code, stdout, stderr) = limited(&format!(
                "--lengths lengths --capacity {capacity}{more} --json"
            ));
            assert_eq!(code, Some(0), "{capacity}{more}: {stderr}");
            let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
            let wrapped = rows.iter().find(|row| row["algorithm"] == "wrapped");
            let packs = (3 * u64::from(u32::MAX)).div_ceil(capacity.parse().unwrap());
            assert_eq!(wrapped.unwrap()["packs"], packs);
        }
        let (code, stdout, stderr) = limited(&format!("--histogram h.json --capacity {capacity}"));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("Left out: streaming: "), "{stdout}");
    }
    let (code, _, stderr) = limited("--lengths lengths --capacity 8 --algorithm wrapped --write p");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cut in 1610612735 places"), "{stderr}");
    let (code, _, stderr) = limited("--histogram /dev/zero --capacity 8");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("more than 64 MiB"), "{stderr}");
}
