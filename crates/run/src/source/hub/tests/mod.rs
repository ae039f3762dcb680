//! A hub on the loopback interface, honest and dishonest.

mod data;
mod server;

use super::*;
use crate::source::{Source, resolve};
use server::{Answers, COMMIT, Server, response, sha256};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

fn hub(cache: &Path, address: &str) -> Hub {
    Hub {
        environment: Environment {
            cache: cache.to_owned(),
            endpoint: Secret(address.to_owned()),
            token: Some(Secret("hf_SECRET".into())),
            offline: false,
            patience: Duration::from_secs(1),
        },
        stop: StopFlag::default(),
    }
}

fn get(cache: &Path, address: &str) -> Result<Source, String> {
    resolve("owner/name", &hub(cache, address), &()).map_err(|error| error.to_string())
}

/// The download fails, with an error that holds no secret and no control characters.
fn refused(answers: Answers) -> String {
    let parent = tempfile::tempdir().unwrap();
    let cache = parent.path().join("a/b/c/d/cache");
    let reason = get(&cache, &answers.serve().address).unwrap_err();
    assert!(
        !reason.contains("SECRET") && !reason.contains(char::is_control),
        "{reason:?}"
    );
    let whole = hub(&cache, "http://127.0.0.1:9").environment;
    assert!(
        Repository::new(&whole.cache, Kind::Model, "owner/name")
            .cached("main")
            .is_none()
    );
    let outside = fs::read_dir(cache.parent().unwrap()).into_iter().flatten();
    assert!(
        outside.flatten().all(|entry| entry.file_name() == "cache"),
        "{reason}"
    );
    reason
}

#[test]
fn a_model_is_downloaded_once_and_then_served_from_the_cache() {
    let server = Answers::model().serve();
    let cache = tempfile::tempdir().unwrap();
    let source = get(cache.path(), &server.address).unwrap();
    let read = |name: &str| fs::read_to_string(source.path().join(name));
    assert_eq!(read("model.safetensors").unwrap(), "weights");
    assert_eq!(read("tokenizer.json").unwrap(), "{\"a\":1}");
    assert!(read("README.md").is_err());
    // The layout of the Python client.
    let folder = cache.path().join("models--owner--name");
    let link = folder.join(format!("snapshots/{COMMIT}/model.safetensors"));
    let target = format!("../../blobs/{}", sha256(b"weights"));
    assert_eq!(fs::read_link(link).unwrap(), Path::new(&target));
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    let blobs = fs::read_dir(folder.join("blobs")).unwrap().flatten();
    assert!(
        blobs
            .map(|blob| blob.file_name())
            .all(|name| name.len() == 64)
    );
    let asked = server.requests();
    assert!(
        asked
            .iter()
            .all(|r| r.contains("authorization: bearer hf_secret"))
    );

    let mut offline = hub(cache.path(), &server.address);
    offline.environment.offline = true;
    assert_eq!(resolve("owner/name", &offline, &()).unwrap(), source);
    assert_eq!(get(cache.path(), &server.address).unwrap(), source);
    assert_eq!(server.requests().len(), asked.len());
}

#[test]
fn shards_are_those_that_the_index_names() {
    let index = r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;
    let mut answers = Answers::new(&[
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("x-1.safetensors", "one"),
        ("x-2.safetensors", "two"),
        ("x-3.safetensors", "three"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let source = get(cache.path(), &answers.clone().serve().address).unwrap();
    assert!(source.path().join("x-2.safetensors").exists());
    assert!(!source.path().join("x-3.safetensors").exists());
    answers.files.remove("x-2.safetensors");
    assert!(refused(answers.clone()).contains("does not have it"));
    for shard in ["../../../x.safetensors", "/etc/passwd", "a\\b", "\u{1b}[2J"] {
        let index = serde_json::json!({"weight_map": {"a": shard}}).to_string();
        answers
            .files
            .insert("model.safetensors.index.json", index.into());
        assert!(refused(answers.clone()).contains("the name of a file"));
    }
}

#[test]
fn the_token_stays_with_the_hub() {
    let elsewhere = Answers::model().serve();
    // Another host by name, and another origin by port.
    let cdn = elsewhere.address.replace("127.0.0.1", "localhost");
    let answers = Answers::model();
    let server = Server::new(move |path, request| match path.starts_with("/api/") {
        true => answers.answer(path, request),
        false => {
            let head = format!("Location: {cdn}{path}?X-Signature=SECRET\r\n");
            let sent = answers.answer(path, request).len() as u64;
            assert!(sent > 0);
            response("302 Found", &head, b"")
        }
    });
    let cache = tempfile::tempdir().unwrap();
    // The other server does not know the path; the failure does not show the address.
    let reason = get(cache.path(), &server.address).unwrap_err();
    assert!(
        !reason.contains("SECRET") && !reason.contains("localhost"),
        "{reason}"
    );
    let there = elsewhere.requests();
    assert!(!there.is_empty());
    assert!(
        there.iter().all(|request| !request.contains("hf_secret")),
        "{there:?}"
    );
    assert!(server.requests().iter().all(|r| r.contains("hf_secret")));
}

#[test]
fn a_redirect_leads_to_the_contents() {
    let store = Server::new(|_, _| response("200 OK", "", b"weights"));
    let (location, size) = (store.address.clone(), 7);
    let answers = Answers::model();
    let server = Server::new(
        move |path, request| match path.ends_with("model.safetensors") {
            false => answers.answer(path, request),
            true => {
                let etag = sha256(b"weights");
                let head = format!(
                    "Location: {location}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\n\
                 ETag: \"other\"\r\n"
                );
                response("302 Found", &head, b"Found. Redirecting")
            }
        },
    );
    let cache = tempfile::tempdir().unwrap();
    let source = get(cache.path(), &server.address).unwrap();
    let weights = source.path().join("model.safetensors");
    assert_eq!(fs::read(weights).unwrap(), b"weights");
    let blob = cache
        .path()
        .join("models--owner--name/blobs")
        .join(sha256(b"weights"));
    assert!(blob.exists());
}

#[test]
fn redirects_that_are_not_safe_are_not_followed() {
    for (location, expected) in [
        ("file:///etc/passwd", "not safe"),
        ("http://user:SECRET@127.0.0.1:9/", "not safe"),
        ("http://[", "an invalid address"),
        ("/owner/name/loop", "without end"),
    ] {
        let answers = Answers::model();
        let server = Server::new(move |path, request| match path.starts_with("/api/") {
            true => answers.answer(path, request),
            false => response("302 Found", &format!("Location: {location}\r\n"), b""),
        });
        let cache = tempfile::tempdir().unwrap();
        let reason = get(cache.path(), &server.address).unwrap_err();
        assert!(
            reason.contains(expected) && !reason.contains("SECRET"),
            "{reason}"
        );
    }
}

#[test]
fn nothing_of_a_server_becomes_a_path() {
    for etag in [
        "../../../../pwn",
        "/tmp/pwn",
        "..",
        "a\\b",
        "nul",
        &"e".repeat(5000),
    ] {
        let mut answers = Answers::model();
        answers.etag = Some(etag.into());
        let cache = tempfile::tempdir().unwrap();
        let source = get(cache.path(), &answers.serve().address).unwrap();
        let blobs = fs::read_dir(cache.path().join("models--owner--name/blobs")).unwrap();
        assert!(blobs.flatten().all(|blob| blob.file_name().len() == 64));
        assert_eq!(fs::read(source.path().join("config.json")).unwrap(), b"{}");
    }
    let mut answers = Answers::model();
    for commit in ["../../../../pwn", "/tmp/pwn", "main", "", "\u{1b}[2J"] {
        answers.commit = commit.into();
        assert!(refused(answers.clone()).contains("which is not a commit"));
    }
    answers.commit = COMMIT.into();
    for other in ["../../../../pwn", &"f".repeat(40)] {
        answers.head = format!("X-Repo-Commit: {other}\r\n");
        assert!(refused(answers.clone()).contains("another commit"));
    }
}

#[test]
fn what_does_not_agree_is_refused() {
    let mut answers = Answers::model();
    answers.head = "X-Linked-Size: 9999\r\n".into();
    assert!(refused(answers.clone()).contains("two different sizes"));
    answers.head = String::new();
    answers.etag = Some("0".repeat(64));
    assert!(refused(answers).contains("SHA-256"));
    let garbage = Server::new(|_, _| b"\x1b[2JSSH-2.0\r\n\r\n".to_vec());
    let cache = tempfile::tempdir().unwrap();
    let reason = get(cache.path(), &garbage.address).unwrap_err();
    assert!(reason.contains("not HTTP"), "{reason}");
}

#[test]
fn a_list_without_end_is_not_read_to_its_end() {
    let server = Server::new(|_, _| {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        [head.as_bytes(), &vec![b' '; 40 << 20]].concat()
    });
    let cache = tempfile::tempdir().unwrap();
    let reason = get(cache.path(), &server.address).unwrap_err();
    assert!(reason.contains("answers more than"), "{reason}");
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let weights = "weights ".repeat(100_000);
    let whole = weights.clone();
    let answers = Answers::new(&[("config.json", "{}"), ("model.safetensors", &weights)]);
    let server = Server::new(move |path, request| {
        let mut answer = answers.answer(path, request);
        // Every answer breaks off: each request brings half of the rest, until little is left.
        if path.ends_with("model.safetensors") && answer.len() > 150_000 {
            answer.truncate(answer.len() / 2);
        }
        answer
    });
    let cache = tempfile::tempdir().unwrap();
    let source = get(cache.path(), &server.address).unwrap();
    let read = fs::read_to_string(source.path().join("model.safetensors")).unwrap();
    assert!(read == whole);
    let requests = server.requests();
    let ranges = requests
        .iter()
        .filter(|r| r.contains("range: bytes="))
        .count();
    assert_eq!(ranges, 3, "{requests:?}");
}

#[test]
fn what_an_earlier_download_has_left_is_checked() {
    for (left, asked) in [
        ("wei", "range: bytes=3-"),
        ("WEI", "range: bytes=3-"),
        ("too long", "get "),
    ] {
        let server = Answers::model().serve();
        let cache = tempfile::tempdir().unwrap();
        let blobs = cache.path().join("models--owner--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let partial = blobs.join(format!("{}.incomplete", sha256(b"weights")));
        fs::write(&partial, left).unwrap();
        let source = get(cache.path(), &server.address).unwrap();
        assert_eq!(
            fs::read(source.path().join("model.safetensors")).unwrap(),
            b"weights"
        );
        assert!(
            server
                .requests()
                .iter()
                .any(|request| request.contains(asked)),
            "{left}"
        );
        assert!(!partial.exists());
    }
}

#[test]
fn a_download_that_fails_half_way_is_not_taken_for_a_model() {
    let server = Answers::new(&[
        ("config.json", "{}"),
        ("model.safetensors.index.json", "{}"),
    ])
    .serve();
    let cache = tempfile::tempdir().unwrap();
    let reason = get(cache.path(), &server.address).unwrap_err();
    assert!(reason.contains("`weight_map` is missing"), "{reason}");
    let mut offline = hub(cache.path(), &server.address);
    offline.environment.offline = true;
    assert!(resolve("owner/name", &offline, &()).is_err());
    let reason = get(cache.path(), "http://127.0.0.1:9").unwrap_err();
    assert!(
        reason.contains("check the network and HF_ENDPOINT"),
        "{reason}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, expected) in [
        ("404 Not Found", "", "check the spelling of the id"),
        (
            "404 Not Found",
            "RevisionNotFound",
            "no branch, tag or commit",
        ),
        (
            "401 Unauthorized",
            "RepoNotFound",
            "check the spelling of the id and HF_TOKEN",
        ),
        (
            "403 Forbidden",
            "GatedRepo",
            "ask for access on http://127.0.0.1",
        ),
        ("429 Too Many Requests", "", "wait some minutes"),
        ("418 I'm a teapot", "", "check HF_ENDPOINT"),
    ] {
        let server = Server::new(move |_, _| {
            response(status, &format!("X-Error-Code: {code}\r\n"), b"\x1b[2J")
        });
        let cache = tempfile::tempdir().unwrap();
        let reason = get(cache.path(), &server.address).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
        assert!(!reason.contains(char::is_control), "{reason:?}");
    }
    let pickled = Answers::new(&[("config.json", "{}"), ("pytorch_model.bin", "x")]);
    assert!(refused(pickled).contains("only as pickled files (pytorch_model.bin)"));
}

#[test]
fn variables_that_are_wrong_are_not_shown() {
    let cache = tempfile::tempdir().unwrap();
    let mut hub = hub(cache.path(), "http://127.0.0.1:9");
    hub.environment.token = Some(Secret("hf_SECRET\nx".into()));
    let broken = resolve("owner/name", &hub, &()).unwrap_err().to_string();
    assert!(broken.contains("HF_TOKEN holds a line break"), "{broken}");
    assert!(!broken.contains("SECRET"), "{broken}");
    for (endpoint, expected) in [
        (
            "http://user:SECRET@127.0.0.1:9",
            "from http://127.0.0.1:9: ",
        ),
        ("user:SECRET@host", "not an address"),
    ] {
        let reason = get(cache.path(), endpoint).unwrap_err();
        assert!(
            reason.contains(expected) && !reason.contains("SECRET"),
            "{reason}"
        );
    }
}

#[test]
fn a_hub_that_is_silent_is_left() {
    let hanging = Server::new(|_, _| {
        thread::sleep(Duration::from_secs(20));
        Vec::new()
    });
    let cache = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let reason = get(cache.path(), &hanging.address).unwrap_err();
    assert!(reason.contains("does not answer in time"), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(10));

    // The download ends at once when asked.
    let mut hub = hub(cache.path(), &hanging.address);
    hub.environment.patience = Duration::from_secs(20);
    let stop = hub.stop.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        stop.request();
    });
    let started = Instant::now();
    let error = resolve("owner/name", &hub, &()).unwrap_err();
    assert!(matches!(error, SourceError::Stopped { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}
