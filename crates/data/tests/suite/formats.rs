//! Every kind of file and layout gives the sequences that it should.

use crate::common::load_bytes;
use tightrope_data::{DataOptions, inspect};

#[test]
fn tokens_need_no_tokenizer() {
    let rows = "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 7]}\n\n{\"input_ids\": [8]}\n";
    let dataset = load_bytes("a.jsonl", rows, &DataOptions::default(), None).unwrap();
    assert_eq!(dataset.sequences[0].tokens(), [5, 6, 7]);
    assert_eq!(dataset.sequences[0].targets(), [6, 7, -100]);
    assert_eq!(dataset.sequences[1].tokens(), [8]);
    assert_eq!(dataset.origins[1].line, Some(3));
    let inspected = inspect(&dataset.sequences[0], None).unwrap();
    let trained: Vec<bool> = inspected.iter().map(|t| t.trained).collect();
    assert_eq!(trained, [false, true, true]);
}
