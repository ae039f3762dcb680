//! Local models and the cache.

use super::*;
use std::time::Duration;
use tightrope_train::StopFlag;

fn hub(cache: &Path) -> Hub {
    Hub {
        environment: Environment {
            cache: cache.to_owned(),
            // Nobody listens there, so any access to the network fails.
            endpoint: Secret("http://127.0.0.1:9".into()),
            token: None,
            offline: false,
            patience: Duration::from_secs(5),
        },
        stop: StopFlag::default(),
    }
}

fn offline(cache: &Path) -> Hub {
    let mut hub = hub(cache);
    hub.environment.offline = true;
    hub
}

fn write(path: PathBuf) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{}").unwrap();
    path
}

/// A whole model in the cache, in the form of the Python client.
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
fn an_address_is_shown_without_its_secrets() {
    let cache = tempfile::tempdir().unwrap();
    let address = "https://user:SECRET@host/owner/name?sig=SECRET";
    let error = resolve(address, &hub(cache.path()), &()).unwrap_err();
    let error = error.to_string();
    assert!(
        !error.contains("SECRET") && error.contains("host/owner/name"),
        "{error}"
    );
}

#[test]
fn a_cached_model_works_offline() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cached(cache.path(), "c0ffee");
    for hub in [offline(cache.path()), hub(cache.path())] {
        for model in ["owner/name", "owner/name@main", "owner/name@c0ffee"] {
            assert_eq!(
                resolve(model, &hub, &()).unwrap(),
                Source::Folder(folder.clone())
            );
        }
    }
    let offline = offline(cache.path());
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
