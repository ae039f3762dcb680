//! Runs that are interrupted, and runs whose output nobody reads.
#![cfg(unix)]

mod fixture;

use fixture::{Fixture, metrics, shown};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const LONG: &[&str] = &[
    "train",
    "run.toml",
    "--threads",
    "1",
    "--set",
    "run.max_steps=100000",
    "--set",
    "run.save_every=100000",
    "--set",
    "run.eval_every=100000",
];

/// One step over all data, which takes minutes with enough data.
const SLOW: &[&str] = &["train", "run.toml", "--set", "batch.accumulation=1000000"];

fn send(signal: &str, run: &Child) {
    let id = run.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success());
}

/// Waits until a run has written its first rows.
fn until_it_trains(fixture: &Fixture) {
    let file = fixture.path("out/metrics.jsonl");
    for _ in 0..3000 {
        if fs::metadata(&file).is_ok_and(|data| data.len() > 600) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no step in half a minute");
}

fn exit_code(run: &mut Child) -> Option<i32> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if let Some(status) = run.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(10));
    }
    run.kill().unwrap();
    panic!("it still runs after a minute");
}

#[test]
fn an_interrupted_run_exits_with_75_whoever_reads_and_whatever_the_signal() {
    for (signal, stdout, stderr) in [
        ("-TERM", Stdio::piped(), Stdio::null()),
        ("-INT", Stdio::null(), full()),
        ("-HUP", full(), Stdio::piped()),
    ] {
        if signal == "-HUP" && is_hangup_ignored() {
            eprintln!("SIGHUP is ignored here, as under nohup, and so in a run: not tried");
            continue;
        }
        let fixture = Fixture::with_config("");
        let mut command = fixture.command(LONG);
        let mut run = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        // The readers leave.
        drop((run.stdout.take(), run.stderr.take()));
        until_it_trains(&fixture);
        send(signal, &run);
        assert_eq!(exit_code(&mut run), Some(75), "{signal}");
        let done = metrics(&fixture.path("out"));
        let last = done.last().unwrap()["step"].as_u64().unwrap();
        let checkpoint = format!("out/checkpoints/step-{last:06}/manifest.json");
        assert!(fixture.path(&checkpoint).exists(), "{checkpoint}");
    }
}

/// Whether the runs of a test inherit an ignored SIGHUP.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

fn full() -> Stdio {
    let file = File::options().write(true).open("/dev/full");
    file.map_or_else(|_| Stdio::null(), Stdio::from)
}

#[test]
fn an_error_that_cannot_be_shown_is_still_an_error() {
    let fixture = Fixture::new();
    for command in [
        &["eval", "--model", "nowhere", "--data", "x"][..],
        &["train", "x.toml"],
    ] {
        let status = fixture.command(command).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{command:?}");
    }
}

#[test]
fn nohup_is_respected() {
    let fixture = Fixture::with_config("");
    let line = format!(
        "trap '' HUP; exec {} {}",
        env!("CARGO_BIN_EXE_tightrope"),
        LONG.join(" ")
    );
    let mut command = Command::new("sh");
    let command = command.args(["-c", &line]).current_dir(fixture.path(""));
    let mut run = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until_it_trains(&fixture);
    send("-HUP", &run);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(run.try_wait().unwrap(), None, "it goes on");
    send("-INT", &run);
    assert_eq!(exit_code(&mut run), Some(75));
}

#[test]
fn the_second_signal_ends_a_step_that_takes_long() {
    let fixture = Fixture::with_config("");
    let line = fs::read_to_string(fixture.path("train.jsonl")).unwrap();
    fixture.write("train.jsonl", &line.repeat(400));
    let mut command = fixture.command(SLOW);
    // Nobody reads the answer to the first signal.
    let mut run = command
        .stdout(Stdio::piped())
        .stderr(full())
        .spawn()
        .unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let plan = lines
        .map(Result::unwrap)
        .any(|line| line.starts_with("before the first step"));
    assert!(plan);
    send("-INT", &run);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(run.try_wait().unwrap(), None, "it finishes its step");
    send("-INT", &run);
    assert_eq!(exit_code(&mut run), Some(130));
}

#[test]
fn before_a_run_begins_the_first_signal_ends_it_and_leaves_an_earlier_one_whole() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "run.max_steps=1"]);
    let before = fixture.read("out/metrics.jsonl");
    // Nobody writes to the pipe, so reading the data never ends.
    let made = Command::new("mkfifo")
        .arg(fixture.path("pipe.jsonl"))
        .status();
    assert!(made.unwrap().success());
    let more = ["--overwrite", "--set", "data.train=[\"pipe.jsonl\"]"];
    let mut command = fixture.command(&[LONG, &more].concat());
    let mut run = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    send("-TERM", &run);
    assert_eq!(exit_code(&mut run), Some(143));
    assert_eq!(fixture.read("out/metrics.jsonl"), before);
    assert!(fixture.path("out/adapter/adapter_config.json").exists());
}

#[test]
fn the_umask_holds_for_every_file() {
    for (mask, file, folder) in [("077", 0o600, 0o700), ("027", 0o640, 0o750)] {
        let fixture = Fixture::with_config("");
        let binary = env!("CARGO_BIN_EXE_tightrope");
        let line = format!("umask {mask}; {binary} train run.toml --set run.max_steps=2");
        let mut command = Command::new("sh");
        let run = command
            .args(["-c", &line])
            .current_dir(fixture.path(""))
            .output();
        let run = run.unwrap();
        assert!(run.status.success(), "{}", shown(&run));
        check_modes(&fixture.path("out"), file, folder);
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_like_a_full_disk() {
    let fixture = Fixture::with_config("");
    let binary = env!("CARGO_BIN_EXE_tightrope");
    let line = format!("ulimit -f 8; {binary} train run.toml");
    let run = Command::new("sh")
        .args(["-c", &line])
        .current_dir(fixture.path(""))
        .output();
    let run = run.unwrap();
    assert_eq!(run.status.code(), Some(1), "{}", shown(&run));
    let said = shown(&run);
    assert!(
        said.contains("error:") && said.contains("too large"),
        "{said}"
    );
    let left = fs::read_dir(fixture.path("out/checkpoints")).unwrap();
    assert_eq!(left.count(), 0);
}

fn check_modes(path: &Path, file: u32, folder: u32) {
    let data = fs::metadata(path).unwrap();
    let mode = data.permissions().mode() & 0o777;
    let expected = if data.is_dir() { folder } else { file };
    assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    for entry in fs::read_dir(path).into_iter().flatten() {
        check_modes(&entry.unwrap().path(), file, folder);
    }
}

#[test]
fn a_run_goes_on_from_another_folder_with_other_words_for_the_same_files() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "run.max_steps=2"]);
    fs::create_dir(fixture.path("sub")).unwrap();
    let mut command = fixture.command(&["train", "../sub/../run.toml", "--resume"]);
    let resumed = command.current_dir(fixture.path("sub")).output().unwrap();
    assert!(resumed.status.success(), "{}", shown(&resumed));
    let again = fixture.ok(&["train", "run.toml", "--resume"]);
    assert!(
        again.contains("nothing to do") && again.contains("run.max_steps"),
        "{again}"
    );
}

/// The merge is ended while its folder has the temporary name: nothing has the final name, and the
/// next merge removes the rest of the first.
#[test]
fn a_merge_that_is_ended_half_way_leaves_nothing_by_its_name() {
    let fixture = Fixture::with_embedding(200_000);
    let merge = ["merge", "--model", "model", "--to", "merged"];
    let (merged, temporary) = (
        fixture.path("merged"),
        fixture.path(".tightrope-tmp-merged"),
    );
    for (signal, leaves) in [("-KILL", true), ("-TERM", false)] {
        let caught = (0..100).any(|_| {
            let mut command = fixture.command(&merge);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut run = command.spawn().unwrap();
            let mut ended = false;
            while !temporary.join("model.safetensors").exists() && !ended {
                ended = run.try_wait().unwrap().is_some();
            }
            if !ended {
                send(signal, &run);
            }
            run.wait().unwrap();
            // The signal may have come too late.
            let late = merged.exists();
            if late {
                fs::remove_dir_all(&merged).unwrap();
            }
            !late
        });
        assert!(caught, "{signal}: every merge was done before the signal");
        assert_eq!(temporary.exists(), leaves, "{signal}");
        fixture.ok(&merge);
        assert!(merged.join("merged.json").exists());
        assert!(!temporary.exists(), "{signal}");
        fs::remove_dir_all(&merged).unwrap();
    }
}
