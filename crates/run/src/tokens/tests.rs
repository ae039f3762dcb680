//! The cache gives what reading gives, is used for exactly the same data, and survives any damage.

use super::*;
use std::sync::{Barrier, Mutex};
use tightrope_data::{Amount, DataOptions, Progress};

/// Remembers what was said, and what was read.
#[derive(Default)]
struct Heard {
    notices: Mutex<Vec<String>>,
    work: Mutex<Vec<String>>,
}

impl Progress for Heard {
    fn start(&self, what: &str, _: Option<u64>) {
        self.work.lock().unwrap().push(what.to_owned());
    }
}

impl Observer for Heard {
    fn notice(&self, text: &str) {
        self.notices.lock().unwrap().push(text.to_owned());
    }
}

/// Two sets of token ids in a folder, and the cache beside them.
struct Files {
    folder: tempfile::TempDir,
    sets: Vec<FileSet>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let row =
            |row: usize| format!("{{\"input_ids\": {:?}}}", (0..=row % 7).collect::<Vec<_>>());
        let sets = ["a", "b"].map(|name| {
            let path = folder.path().join(format!("{name}.jsonl"));
            let rows: Vec<String> = (0..60).map(row).collect();
            fs::write(&path, rows.join("\n\n")).unwrap();
            FileSet {
                name: Some(name.to_owned()),
                paths: vec![path],
                options: DataOptions::default(),
                amount: Amount::Weight(0.5),
            }
        });
        Self {
            folder,
            sets: sets.into(),
        }
    }

    fn cache(&self) -> TokenCache {
        TokenCache {
            folder: self.folder.path().join("cache"),
            from_bytes: 0,
        }
    }

    /// The data, what was read for it, and what was said.
    fn load(&self) -> (Dataset, Vec<String>, Vec<String>) {
        let heard = Heard::default();
        let data = self
            .cache()
            .load(&self.sets, None, Some(99), &heard)
            .unwrap();
        let (work, notices) = (heard.work.into_inner(), heard.notices.into_inner());
        (data, work.unwrap(), notices.unwrap())
    }

    /// The only file of the cache.
    fn stored(&self) -> PathBuf {
        let files = fs::read_dir(self.folder.path().join("cache")).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let mut files = files.filter(|path| path.extension().is_some_and(|e| e == ENDING));
        let file = files.next().unwrap();
        assert_eq!(files.next(), None);
        file
    }
}

fn assert_same(a: &Dataset, b: &Dataset) {
    let all = |data: &Dataset| -> Vec<_> {
        let sequences = 0..data.sequences.len();
        let of = |index| {
            (
                data.sequences.get(index).unwrap(),
                data.sequences.origin(index).unwrap(),
            )
        };
        sequences.map(of).collect()
    };
    assert_eq!(
        (all(a), a.kind, &a.desirable),
        (all(b), b.kind, &b.desirable)
    );
    assert_eq!(a.sequences.identity(), b.sequences.identity());
    assert_eq!(a.report, b.report);
}

#[test]
fn the_second_run_starts_with_the_tokens_of_the_first() {
    let files = Files::new();
    let plain = load_sets(&files.sets, None, Some(99), &()).unwrap();
    let (first, work, notices) = files.load();
    assert_eq!(work, ["reading data"]);
    assert!(notices[0].contains("keeps the tokens"), "{notices:?}");
    let (second, work, notices) = files.load();
    assert!(
        work.is_empty() && notices.is_empty(),
        "{work:?} {notices:?}"
    );
    assert_same(&plain, &first);
    assert_same(&plain, &second);
    // How often records are taken is decided later.
    let mixed = |data: Dataset| data.mixed(3).unwrap();
    assert_same(&mixed(plain), &mixed(second));
}

#[test]
fn everything_that_decides_the_tokens_is_in_the_key() {
    let mut files = Files::new();
    let of = |files: &Files, embedding| key(&files.sets, None, embedding).unwrap();
    let mut seen = BTreeSet::from([of(&files, Some(99)), of(&files, None)]);
    files.sets[0].amount = Amount::Samples(3);
    assert!(
        !seen.insert(of(&files, None)),
        "amounts do not decide the tokens"
    );
    files.sets[1].options.max_length = 4;
    assert!(seen.insert(of(&files, None)));
    let template = files.folder.path().join("t.jinja");
    files.sets[1].options.chat_template = Some(template.display().to_string());
    for text in ["{{ 1 }}", "{{ 2 }}"] {
        fs::write(&template, text).unwrap();
        assert!(seen.insert(of(&files, None)));
    }
    let path = files.sets[0].paths[0].clone();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('0', "1", 1)).unwrap();
    assert!(seen.insert(of(&files, None)));
    fs::remove_file(&path).unwrap();
    assert_eq!(key(&files.sets, None, None), None);
    let error = files
        .cache()
        .load(&files.sets, None, None, &())
        .unwrap_err();
    assert!(error.to_string().contains("a.jsonl"), "{error}");
}

#[test]
fn damage_is_found_said_and_mended() {
    let files = Files::new();
    let plain = load_sets(&files.sets, None, Some(99), &()).unwrap();
    files.load();
    let file = files.stored();
    let whole = fs::read(&file).unwrap();
    let tokens = 80..80 + 8 * plain.sequences.tokens() as usize;
    let check = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        let (data, work, notices) = files.load();
        assert_same(&plain, &data);
        assert_eq!(work, ["reading data"], "{what}");
        assert!(
            notices[0].contains("cannot be used (it"),
            "{what}: {notices:?}"
        );
        assert_eq!(fs::read(&file).unwrap(), whole, "{what}");
    };
    let step = whole.len() / 40;
    for place in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
        check(&whole[..place], &format!("cut to {place}"));
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        if !tokens.contains(&place) {
            check(&bytes, &format!("byte {place}"));
            continue;
        }
        // Tokens are read when they are needed, and then compared.
        fs::write(&file, bytes).unwrap();
        let (data, work, _) = files.load();
        assert!(work.is_empty());
        let wrong: Vec<_> = data.sequences.iter().filter_map(Result::err).collect();
        assert_eq!(wrong.len(), 1, "byte {place}");
        let (text, why) = (wrong[0].to_string(), std::error::Error::source(&wrong[0]));
        assert!(text.contains(&file.display().to_string()), "{text}");
        let why = why.unwrap().to_string();
        assert!(why.contains("is damaged; delete the file"), "{why}");
    }
    check(&[&whole[..], b"x"].concat(), "a byte more");
    check(b"", "empty");
    // The whole file of other data.
    let mut other = Files::new();
    other.sets[0].options.max_length = 3;
    other.load();
    check(&fs::read(other.stored()).unwrap(), "other data");
}

#[test]
fn several_processes_get_the_same_and_leave_one_whole_file() {
    let files = Files::new();
    let plain = load_sets(&files.sets, None, Some(99), &()).unwrap();
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                assert_same(&plain, &files.load().0);
            });
        }
    });
    let (data, work, _) = files.load();
    assert_same(&plain, &data);
    assert!(work.is_empty(), "{work:?}");
    files.stored();
    // While one writes, another goes on without.
    fs::remove_file(files.stored()).unwrap();
    let lock = File::options()
        .append(true)
        .open(files.folder.path().join("cache/.lock"))
        .unwrap();
    lock.lock().unwrap();
    let (data, _, notices) = files.load();
    assert_same(&plain, &data);
    assert!(notices.is_empty(), "{notices:?}");
    drop(lock);
    assert_eq!(files.load().1, ["reading data"]);
    assert!(files.load().1.is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let files = Files::new();
    fs::write(files.folder.path().join("cache"), "a file").unwrap();
    let (data, _, notices) = files.load();
    assert_eq!(data.sequences.len(), 120);
    assert!(notices[0].contains("cannot be kept here"), "{notices:?}");
}

#[test]
fn little_data_is_read_anew_by_default() {
    let files = Files::new();
    let cache = TokenCache {
        from_bytes: WORTHWHILE,
        ..files.cache()
    };
    cache.load(&files.sets, None, None, &()).unwrap();
    assert!(!cache.folder.exists());
}
