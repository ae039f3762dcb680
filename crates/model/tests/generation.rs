//! Reading a text in pieces with a cache gives the logits of reading it at once.

mod common;

use common::{cases, cpu, documents, options, whole};
use tightrope_model::{BaseStorage, LoadOptions, Model, ModelError};
use tightrope_packing::Batch;

#[test]
fn a_cache_gives_the_logits_of_the_whole_text() {
    for case in cases() {
        let sequences = documents(&case);
        let longest = (0..sequences.len())
            .max_by_key(|&i| sequences[i].len())
            .unwrap();
        let tokens = sequences[longest].tokens();
        let options = options(&case, true, &sequences);
        let mut model = Model::load(&cpu(2), &case, &options).unwrap();
        let batch = Batch::packed(&sequences, &[whole(&sequences, longest)]).unwrap();
        let vocabulary = model.config().architecture().vocabulary;
        let logits = model.logits(&batch).unwrap();
        // Frequencies that depend on the length differ while a text grows.
        let name = case.file_name().unwrap().to_string_lossy();
        let by_length = name.contains("dynamic") || name.contains("longrope");
        let mut cache = model.cache(tokens.len()).unwrap();
        let prompt = if by_length {
            tokens.len()
        } else {
            tokens.len() / 2
        };
        let mut last = model.prefill(&mut cache, &tokens[..prompt]).unwrap();
        for position in prompt..=tokens.len() {
            assert_eq!(cache.len(), position);
            let expected = &logits[(position - 1) * vocabulary..position * vocabulary];
            for (a, b) in last.iter().zip(expected) {
                let close = (a - b).abs() <= 1e-4;
                assert!(close, "{case:?}, {position}: {a} and {b}");
            }
            if let Some(&token) = tokens.get(position) {
                last = model.decode(&mut cache, token).unwrap();
            }
        }
        let full = model.decode(&mut cache, 3).unwrap_err();
        assert!(matches!(full, ModelError::Capacity { .. }));
        cache.clear();
        assert!(cache.is_empty());
        assert!(model.prefill(&mut cache, &[]).is_err());
    }
}

#[test]
fn a_prompt_longer_than_the_model_is_read_in_pieces() {
    let case = &cases()[0];
    let sequences = documents(case);
    let tokens: Vec<u32> = (0..29).map(|i| 3 + i * 7 % 90).collect();
    let mut logits = [64, 8].map(|capacity| {
        let options = LoadOptions {
            adapter: None,
            base: BaseStorage::AsStored,
            capacity,
            ..options(case, false, &sequences)
        };
        let mut model = Model::load(&cpu(1), case, &options).unwrap();
        let mut cache = model.cache(32).unwrap();
        model.prefill(&mut cache, &tokens).unwrap()
    });
    let [once, pieces] = &mut logits;
    for (a, b) in once.iter().zip(pieces) {
        let close = (*a - *b).abs() <= 1e-4;
        assert!(close);
    }
}
