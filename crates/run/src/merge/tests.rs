//! Places for a merged model, and the match of adapters and models.

use super::{manifest, place};
use crate::source::{Origin, Source};
use std::{fs, path::Path};

fn refused(result: Result<impl Sized, crate::RunError>) -> String {
    result.err().expect("it should be refused").to_string()
}

#[test]
fn a_name_of_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let gguf = refused(place::target(&at("x.GGUF")));
    assert!(gguf.contains("tightrope export"), "{gguf}");
    assert!(refused(place::target(&at("x.safetensors"))).contains("give a folder"));
    fs::write(at("file"), "").unwrap();
    assert!(refused(place::target(&at("file"))).contains("there is a file"));
    let version = place::target(&at("a/../model-v1.5")).unwrap();
    assert!(version.ends_with("model-v1.5"));
}

#[test]
fn the_target_is_apart_from_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("runs/model")).unwrap();
    let check = |target: &str| {
        let target = place::target(&at(target)).unwrap();
        place::keep_apart(&target, "the model", &at("runs/model"))
    };
    assert!(refused(check("runs/model")).contains(" is the model"));
    assert!(refused(check("runs")).contains(" holds the model"));
    assert!(refused(check("runs/model/../model/new")).contains(" lies in the model"));
    check("runs/merged").unwrap();
    check("runs/model-2").unwrap();
}

#[test]
fn only_what_a_merge_has_written_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("merged");
    manifest::check(&target, false).unwrap();
    fs::create_dir(&target).unwrap();
    manifest::check(&target, false).unwrap();
    fs::create_dir(target.join("empty")).unwrap();
    assert!(refused(manifest::check(&target, true)).contains("no merge has written it"));
    fs::remove_dir(target.join("empty")).unwrap();
    fs::write(target.join("config.json"), "{}").unwrap();
    assert!(refused(manifest::check(&target, true)).contains("no merge has written it"));

    manifest::write(&target).unwrap();
    assert!(refused(manifest::check(&target, false)).contains("--overwrite"));
    manifest::check(&target, true).unwrap();
    fs::write(target.join("notes.txt"), "mine").unwrap();
    assert!(refused(manifest::check(&target, true)).contains("notes.txt is not as"));
    fs::remove_file(target.join("notes.txt")).unwrap();
    fs::write(target.join("config.json"), "{\"mine\": 1}").unwrap();
    assert!(refused(manifest::check(&target, true)).contains("config.json is not as"));
    fs::write(target.join("config.json"), "{}").unwrap();
    drop(manifest::set_aside(&target).unwrap());
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, weights) in [("one", "weights"), ("copy", "weights"), ("two", "WEIGHTS")] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("model.safetensors"), weights).unwrap();
    }
    fs::create_dir(at("adapter")).unwrap();
    let check = |named: &str, model: &str, origin: Origin| {
        let settings = serde_json::json!({ "base_model_name_or_path": named }).to_string();
        fs::write(at("adapter/adapter_config.json"), settings).unwrap();
        place::check_base(&at("adapter"), &origin, &Source::Folder(at(model)))
    };
    let local = |model: &str| Origin::of_path(&at(model));
    let hub = |id: &str| Origin {
        name: id.into(),
        revision: None,
    };
    let one = at("one").display().to_string();
    check(&one, "one", local("one")).unwrap();
    check(&one, "copy", local("copy")).unwrap();
    assert!(refused(check(&one, "two", local("two"))).contains("--any-base"));
    check("owner/name", "one", hub("Owner/name")).unwrap();
    let other = refused(check("owner/name", "one", hub("owner/other")));
    assert!(
        other.contains("trained on owner/name, and the model is owner/other"),
        "{other}"
    );
    let cached = "/nowhere/models--owner--name/snapshots/c0ffee";
    check(cached, "one", hub("owner/name")).unwrap();
    assert!(check(cached, "one", hub("owner/other")).is_err());
    // Models that cannot be compared are left to the caller.
    for unknown in ["owner/name", "/nowhere/model", ""] {
        check(unknown, "two", local("two")).unwrap();
    }
    fs::remove_file(Path::new(&at("adapter/adapter_config.json"))).unwrap();
    place::check_base(&at("adapter"), &local("two"), &Source::Folder(at("two"))).unwrap();
}
