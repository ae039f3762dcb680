//! Local models, the cache, and a hub on the loopback interface.

use super::*;

fn hub(cache: &Path) -> Hub {
    Hub {
        cache: cache.to_owned(),
        // Nobody listens there: whoever asks the network fails.
        endpoint: "http://127.0.0.1:9".into(),
        token: None,
        offline: false,
    }
}

fn write(path: PathBuf) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{}").unwrap();
    path
}

/// A whole model in the cache, as the Python client leaves it.
fn cached(cache: &Path, commit: &str) -> PathBuf {
    let model = cache.join("models--owner--name");
    let folder = model.join("snapshots").join(commit);
    write(folder.join("config.json"));
    write(folder.join("model.safetensors"));
    fs::write(write(model.join("refs/main")), commit).unwrap();
    folder
}

#[test]
fn local_models_never_touch_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let find = |path: &Path| resolve(path.to_str().unwrap(), &hub(&at("cache")), &());
    write(at("hf/config.json"));
    assert_eq!(find(&at("hf")).unwrap(), Source::Folder(at("hf")));
    let file = write(at("quantized/m.gguf"));
    assert_eq!(find(&file).unwrap(), Source::Gguf(file.clone()));
    assert_eq!(find(&at("quantized")).unwrap(), Source::Gguf(file));
    write(at("quantized/second.gguf"));
    let two = find(&at("quantized")).unwrap_err();
    assert!(
        matches!(two, SourceError::EmptyFolder { found: 2, .. }),
        "{two}"
    );
    let other = find(&write(at("weights.bin"))).unwrap_err();
    assert!(matches!(other, SourceError::NotAModel { .. }), "{other}");
    let missing = find(&at("none")).unwrap_err();
    assert!(matches!(missing, SourceError::NotFound { .. }), "{missing}");
}

#[test]
fn what_is_no_id_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for model in [
        "name",
        "../x",
        "a/..",
        "a/b c",
        "a/b@../main",
        "a/b@",
        "~/m",
    ] {
        let error = resolve(model, &hub(folder.path()), &()).unwrap_err();
        let local = matches!(error, SourceError::NotFound { .. }) && looks_local(model);
        assert!(
            local || matches!(error, SourceError::NotAnId { .. }),
            "{model}: {error}"
        );
    }
}

#[test]
fn a_cached_model_works_offline() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cached(cache.path(), "c0ffee");
    for offline in [true, false] {
        let hub = Hub {
            offline,
            ..hub(cache.path())
        };
        for model in ["owner/name", "owner/name@main", "owner/name@c0ffee"] {
            assert_eq!(
                resolve(model, &hub, &()).unwrap(),
                Source::Folder(folder.clone())
            );
        }
    }
    let offline = Hub {
        offline: true,
        ..hub(cache.path())
    };
    let error = resolve("owner/other", &offline, &()).unwrap_err();
    assert!(
        error.to_string().contains("HF_HUB_OFFLINE is set"),
        "{error}"
    );
    // A shard that is missing makes the model incomplete.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    write(folder.join("model-1.safetensors"));
    assert!(resolve("owner/name", &offline, &()).is_err());
    write(folder.join("model-2.safetensors"));
    assert!(resolve("owner/name", &offline, &()).is_ok());
}

#[cfg(feature = "hub")]
mod download {
    use super::*;
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::{Arc, Mutex},
    };

    const COMMIT: &str = "0123456789abcdef";

    /// Serves `files` of owner/name as the hub does; returns its address and the requests so far.
    fn serve(files: &'static [(&'static str, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut request, mut line) = (String::new(), String::new());
                while reader.read_line(&mut line).unwrap() > 2 {
                    request += &std::mem::take(&mut line);
                }
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(request.clone());
                let answer = answer(&path, &request, files);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (endpoint, requests)
    }

    fn answer(path: &str, request: &str, files: &[(&str, &str)]) -> String {
        let close = "Connection: close";
        if path.starts_with("/api/models/owner/name") {
            let names = files
                .iter()
                .map(|(name, _)| format!(r#"{{"rfilename":"{name}"}}"#));
            let names: Vec<String> = names.collect();
            let body = format!(r#"{{"siblings":[{}],"sha":"{COMMIT}"}}"#, names.join(","));
            return format!(
                "HTTP/1.1 200 OK\r\n{close}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        let name = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/"));
        let Some((_, body)) = name.and_then(|name| files.iter().find(|(n, _)| *n == name)) else {
            return format!("HTTP/1.1 404 Not Found\r\n{close}\r\nContent-Length: 0\r\n\r\n");
        };
        let size = body.len();
        let part = if request.contains("bytes=0-0") {
            &body[..1]
        } else {
            body
        };
        format!(
            "HTTP/1.1 206 Partial Content\r\n{close}\r\nx-repo-commit: {COMMIT}\r\netag: \"{size}-{}\"\r\n\
             Content-Range: bytes 0-{}/{size}\r\nContent-Length: {}\r\n\r\n{part}",
            path.len(),
            part.len() - 1,
            part.len(),
        )
    }

    #[test]
    fn a_model_is_downloaded_once_and_then_served_from_the_cache() {
        let (endpoint, requests) = serve(&[
            ("config.json", "{}"),
            ("README.md", "no"),
            ("onnx/model.safetensors", "no"),
            ("model.safetensors", "weights"),
            ("tokenizer.json", "{\"a\":1}"),
        ]);
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub {
            endpoint,
            token: Some("secret".into()),
            ..hub(cache.path())
        };
        let source = resolve("owner/name", &hub, &()).unwrap();
        let read = |name: &str| fs::read_to_string(source.path().join(name));
        assert_eq!(read("model.safetensors").unwrap(), "weights");
        assert_eq!(read("tokenizer.json").unwrap(), "{\"a\":1}");
        assert!(read("README.md").is_err());
        let asked = requests.lock().unwrap().clone();
        assert!(
            asked
                .iter()
                .all(|r| r.to_lowercase().contains("authorization: bearer secret"))
        );

        let offline = Hub {
            offline: true,
            ..hub.clone()
        };
        assert_eq!(resolve("owner/name", &offline, &()).unwrap(), source);
        assert_eq!(resolve("owner/name", &hub, &()).unwrap(), source);
        assert_eq!(requests.lock().unwrap().len(), asked.len());
    }

    #[test]
    fn a_download_that_fails_half_way_is_not_taken_for_a_model() {
        // The index names no file that exists, so the weights fail after the configuration.
        let (endpoint, _) = serve(&[
            ("config.json", "{}"),
            ("model.safetensors.index.json", "{}"),
        ]);
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub {
            endpoint,
            ..hub(cache.path())
        };
        let folder = cached(cache.path(), "old");
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        let missing = resolve(
            "owner/name@gone",
            &Hub {
                offline: true,
                ..hub.clone()
            },
            &(),
        );
        assert!(missing.is_err());
        let unreachable = Hub {
            endpoint: "http://127.0.0.1:9".into(),
            ..hub.clone()
        };
        let error = resolve("owner/name", &unreachable, &())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("check the network and HF_ENDPOINT"),
            "{error}"
        );
        let error = resolve("owner/absent", &hub, &()).unwrap_err().to_string();
        assert!(error.contains("check the spelling of the id"), "{error}");
    }

    #[test]
    fn a_repository_without_readable_weights_lists_what_it_has() {
        let (endpoint, _) = serve(&[
            ("a-Q4.gguf", "x"),
            ("a-Q8.gguf", "x"),
            ("config.json", "{}"),
        ]);
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub {
            endpoint,
            ..hub(cache.path())
        };
        let error = resolve("owner/name", &hub, &()).unwrap_err().to_string();
        assert!(error.contains("a-Q4.gguf, a-Q8.gguf"), "{error}");
    }
}
