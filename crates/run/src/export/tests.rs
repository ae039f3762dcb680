//! Places for an exported file.

use super::{FORMATS, place};
use std::{fs, path::Path};

fn refused(result: Result<impl Sized, crate::RunError>) -> String {
    result.err().expect("it should be refused").to_string()
}

#[test]
fn the_target_is_a_file_with_the_ending_of_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder.gguf")).unwrap();
    let target = |name: &str| place::target(&at(name), FORMATS[0]);
    assert!(refused(target("folder.gguf")).contains("this is a folder"));
    for name in ["model", "model.bin"] {
        assert!(refused(target(name)).contains("ends in .gguf"));
    }
    assert!(target("a/../m.GGUF").unwrap().ends_with("m.GGUF"));
    fs::write(at("there.gguf"), "mine").unwrap();
    let there = target("there.gguf").unwrap();
    assert!(refused(place::check(&there, true)).contains("no export has written it"));
    assert!(place::modelfile(Path::new("a/m.gguf")).ends_with("m.Modelfile"));
}

#[test]
fn the_target_is_apart_from_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("model")).unwrap();
    fs::write(at("base.gguf"), "").unwrap();
    let check = |target: &str, input: &str| {
        let target = place::target(&at(target), FORMATS[0]).unwrap();
        place::keep_apart(&target, "the model", &at(input))
    };
    assert!(refused(check("model/../model/new.gguf", "model")).contains("lies in the model"));
    assert!(refused(check("base.gguf", "base.gguf")).contains("is the model"));
    check("new.gguf", "base.gguf").unwrap();
}

#[test]
fn only_what_an_export_has_written_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let target = at("m.gguf");
    place::check(&target, false).unwrap();
    let write = |key: &str| {
        let text = tightrope_formats::gguf::Value::Text("1".into());
        let metadata = [(key, text)];
        tightrope_formats::gguf::write::<tightrope_formats::FormatError>(&target, &metadata, vec![])
    };
    write("general.name").unwrap();
    assert!(refused(place::check(&target, true)).contains("no export has written it"));
    write("tightrope.version").unwrap();
    assert!(refused(place::check(&target, false)).contains("--overwrite"));
    place::check(&target, true).unwrap();
    fs::write(at("m.Modelfile"), "FROM mine").unwrap();
    assert!(refused(place::check(&target, true)).contains("m.Modelfile"));
    fs::write(at("m.Modelfile"), "# Written by tightrope export. Then").unwrap();
    place::check(&target, true).unwrap();
    fs::write(&target, "mine").unwrap();
    assert!(refused(place::check(&target, true)).contains("no export has written it"));
    assert!(place::check(&at("m.Modelfile").join("x.gguf"), false).is_err());
}
