//! Data sets of a hub on the loopback interface.

use super::{
    hub,
    server::{Server, response, sha256},
};
use std::{fs, path::Path};

/// A hub with a data set: its branches with their files.
fn data_server(
    branches: &'static [(&'static str, &'static [(&'static str, &'static str)])],
) -> Server {
    Server::new(move |path, request| {
        for (index, (branch, files)) in branches.iter().enumerate() {
            let commit = format!("{index}").repeat(40);
            // The server sees requests in lower case.
            let escaped = branch.replace('/', "%2f");
            if path.starts_with(&format!("/api/datasets/owner/name/revision/{escaped}?")) {
                let names = files
                    .iter()
                    .map(|(name, _)| serde_json::json!({"rfilename": name}));
                let names: Vec<_> = names.collect();
                let list = serde_json::json!({"siblings": names, "sha": commit});
                return response("200 OK", "", list.to_string().as_bytes());
            }
            let name = path.strip_prefix(&format!("/datasets/owner/name/resolve/{commit}/"));
            let file = name.and_then(|name| files.iter().find(|(own, _)| *own == name));
            if let Some((_, body)) = file {
                assert!(request.contains("authorization: bearer hf_secret"));
                let etag = sha256(body.as_bytes());
                let head = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n");
                return response("200 OK", &head, body.as_bytes());
            }
        }
        response("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", b"")
    })
}

fn data(
    cache: &Path,
    address: &str,
    name: &str,
    subset: Option<&str>,
    split: &str,
) -> Result<Vec<String>, String> {
    let hub = hub(cache, address);
    let files = crate::source::data_files(Path::new(name), subset, split, &hub, &());
    let files = files.map_err(|error| error.to_string())?;
    let read = |file| fs::read_to_string(file).unwrap();
    Ok(files.iter().map(read).collect())
}

#[test]
fn a_split_is_downloaded_once_and_whole() {
    let server = data_server(&[
        ("main", &[("train.jsonl", "own")]),
        (
            "refs/convert/parquet",
            &[
                ("default/train/0000.parquet", "one"),
                ("default/train/0001.parquet", "two"),
                ("default/test/0000.parquet", "three"),
                ("../../../evil/train/0000.parquet", "bad"),
            ],
        ),
        (
            "v1",
            &[
                ("data/train-0.jsonl", "old"),
                ("data/test.jsonl", "old test"),
            ],
        ),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let get = |name: &str, split| data(cache.path(), &server.address, name, None, split);
    assert_eq!(get("hub:owner/name", "train").unwrap(), ["one", "two"]);
    let asked = server.requests().len();
    assert_eq!(asked, 3);
    assert_eq!(get("hub:owner/name", "train").unwrap(), ["one", "two"]);
    assert_eq!(server.requests().len(), asked, "the cache has it");
    assert_eq!(get("hub:owner/name", "test").unwrap(), ["three"]);
    assert_eq!(get("hub:owner/name@v1", "train").unwrap(), ["old"]);
    let folder = cache.path().join("datasets--owner--name");
    assert!(folder.join("refs/refs/convert/parquet").exists() && folder.join("refs/v1").exists());
    // Without network there is what was downloaded, and nothing else.
    let mut offline = hub(cache.path(), &server.address);
    offline.environment.offline = true;
    let files = |name: &str, split: &str| {
        crate::source::data_files(Path::new(name), None, split, &offline, &())
    };
    assert_eq!(files("hub:owner/name", "train").unwrap().len(), 2);
    let error = files("hub:owner/name", "validation").unwrap_err();
    assert!(
        error.to_string().contains("HF_HUB_OFFLINE is set"),
        "{error}"
    );
    // A file that is missing is fetched again.
    fs::remove_file(&files("hub:owner/name", "train").unwrap()[1]).unwrap();
    assert!(files("hub:owner/name", "train").is_err());
    assert_eq!(get("hub:owner/name", "train").unwrap(), ["one", "two"]);
    // A path is a path.
    assert_eq!(
        files("owner/name", "train").unwrap(),
        [Path::new("owner/name")]
    );
}

#[test]
fn what_a_data_set_does_not_have_is_named() {
    let server = data_server(&[("main", &[("fr/train.jsonl", "own"), ("README.md", "")])]);
    let get = |name: &str, subset, split| {
        let cache = tempfile::tempdir().unwrap();
        data(cache.path(), &server.address, name, subset, split)
    };
    // Not every data set is converted.
    assert_eq!(get("hub:owner/name", Some("fr"), "train").unwrap(), ["own"]);
    for (name, subset, split, says) in [
        (
            "hub:owner/name",
            None,
            "test",
            "`owner/name` has no split `test`; its files of records are fr/train.jsonl",
        ),
        (
            "hub:owner/name",
            Some("de"),
            "train",
            "no split `train` of the subset `de`; it has no files of records there",
        ),
        (
            "hub:owner/name@v9",
            None,
            "train",
            "the data set has no such revision",
        ),
        (
            "hub:owner/other",
            None,
            "train",
            "the data set has no such revision",
        ),
        ("hub:name", None, "train", "is not `hub:owner/name`"),
        (
            "hub:owner/name@../x",
            None,
            "train",
            "is not `hub:owner/name`",
        ),
        ("hub:../../x", None, "train", "is not `hub:owner/name`"),
    ] {
        let error = get(name, subset, split).unwrap_err();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}
